"""The header and a graph as compressed text: the smaller of two common encodings."""

from __future__ import annotations

import lzma
import zlib

from demiglace.artifact.packed.dictionary import DICTIONARY
from demiglace.artifact.packed.stream import Damaged

LZMA2, DEFLATE = 0, 1

_MOST_TEXT = 1 << 26  # bytes
_MOST_RATIO = 1 << 14  # of text to its compressed bytes
_FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": 4, "lp": 0, "pb": 0}]


def compressed(text: bytes) -> bytes:
    """Text as raw LZMA2, or as raw deflate that knows the dictionary: what is smaller, after its number."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return min(
        bytes([LZMA2]) + lzma.compress(text, lzma.FORMAT_RAW, filters=_FILTERS),
        bytes([DEFLATE]) + deflate.compress(text) + deflate.flush(),
        key=len,
    )


def text_of(content: bytes, length: int) -> bytes:
    """The text of so many bytes that was compressed.

    Raises:
        Damaged: when it is not, or the length is beyond what so few bytes can hold.
    """
    if length > min(_MOST_TEXT, _MOST_RATIO * len(content)):
        raise Damaged(f"a text of {length} bytes cannot be in {len(content)}")
    try:
        text = _decompressed(content[:1], content[1:], length + 1)
    except (lzma.LZMAError, zlib.error) as error:
        raise Damaged(f"a text cannot be decompressed: {error}") from None
    if len(text) != length:
        raise Damaged(f"a text should have {length} bytes")
    return text


def _decompressed(number: bytes, content: bytes, most: int) -> bytes:
    if number == bytes([LZMA2]):
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(content, max_length=most)
    if number == bytes([DEFLATE]):
        return zlib.decompressobj(-15, zdict=DICTIONARY).decompress(content, most)
    raise Damaged(f"a text has the unknown encoding {number.hex() or 'of no byte'}")
