"""Arrays of unsigned integers of 1, 2, 4 or 8 bytes, the bit patterns of a tensor's elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from demiglace.artifact.packed import integers
from demiglace.artifact.packed.regression import Memory
from demiglace.artifact.packed.stream import Cursor, Damaged

Words = NDArray[np.unsignedinteger[Any]]
"""One-dimensional and little-endian: dtype `u1`, `<u2`, `<u4` or `<u8`."""

RAW, BYTES, CODEBOOK, SPARSE, PLANES, FLOATS, SIGNED = range(7)
_NAMES = {
    RAW: "raw",
    CODEBOOK: "codebook",
    SPARSE: "sparse",
    PLANES: "byte planes",
    FLOATS: "float planes",
    SIGNED: "sparse with signed zeros",
}

_SAMPLE = 4096
_BOOK = 256  # entries of a codebook
_FEW_ZEROS = 1 / 256  # a share of zeros that is not worth their positions


def encode(words: Words, columns: int, *, floats: bool, memory: Memory | None) -> bytes:
    """The smallest encoding.

    Args:
        words: at least one.
        columns: of the matrix that they are in row-major order, or how many they are.
        floats: whether they are floating-point numbers: sign, exponent and mantissa from the highest bit.
        memory: of the blocks of the tensor so far; without it nothing is looked for in rows, columns and
            neighbours, which takes longer.
    """
    tried, context = [bytes([RAW]) + words.tobytes()], memory is not None
    after = Memory(memory)
    zeros = 1 - np.count_nonzero(_magnitudes(words, floats)) / len(words)
    if words.dtype.itemsize == 1:
        coded = integers.encode(words.view(np.uint8), columns, after if context else None)
        tried.append(bytes([BYTES]) + coded)
    elif zeros < 0.5:
        tried.append(_planes(words, columns, floats, context))
    if len(np.unique(words[:: -(-len(words) // _SAMPLE)])) <= _BOOK:
        tried += _codebook(words, columns, context)
    if words.dtype.itemsize > 1 and _FEW_ZEROS < zeros < 1:
        tried.append(_sparse(words, columns, floats, context))
    smallest = min(tried, key=len)
    if memory is not None and smallest[0] == BYTES:
        memory.become(after)
    return smallest


def encoding_of(block: bytes) -> str:
    """How the words of a block are coded, for people."""
    tag, kind = [*block[:2], RAW, RAW][:2]
    return integers.NAMES.get(kind, "unknown") if tag == BYTES else _NAMES.get(tag, "unknown")


def decode(cursor: Cursor, count: int, columns: int, dtype: np.dtype[Any], memory: Memory) -> Words:
    """The `count` words that `encode` wrote; `memory` is of the blocks of the tensor so far.

    Raises:
        Damaged: when the bytes are no such encoding.
    """
    tag = cursor.byte()
    if tag == RAW:
        return np.frombuffer(cursor.take(count * dtype.itemsize), dtype=dtype)
    if tag == BYTES and dtype.itemsize == 1:
        return integers.decode(cursor, count, columns, memory)
    if tag == CODEBOOK:
        return _from_codebook(cursor, count, columns, dtype)
    if tag in {SPARSE, SIGNED}:
        return _from_sparse(cursor, count, columns, dtype, signed=tag == SIGNED)
    if tag in {PLANES, FLOATS}:
        return _from_planes(cursor, count, columns, dtype, floats=tag == FLOATS)
    raise Damaged(f"words of {dtype.itemsize} bytes have the unknown encoding {tag}")


def _apart(context: bool) -> Memory | None:
    return Memory() if context else None


def _codebook(words: Words, columns: int, context: bool) -> list[bytes]:
    """Distinct values, ascending, and the index of each word; none where that is no use."""
    values = np.unique(words)
    if len(values) > _BOOK or (words.dtype.itemsize == 1 and int(values[-1]) < len(values)):
        return []
    coded = integers.encode(np.searchsorted(values, words).astype(np.uint8), columns, _apart(context))
    return [bytes([CODEBOOK, len(values) - 1]) + values.tobytes() + coded]


def _from_codebook(cursor: Cursor, count: int, columns: int, dtype: np.dtype[Any]) -> Words:
    size = cursor.byte() + 1
    values = np.frombuffer(cursor.take(size * dtype.itemsize), dtype=dtype)
    indices = integers.decode(cursor, count, columns, Memory())
    if int(indices.max()) >= size:
        raise Damaged(f"a codebook of {size} values has no number {indices.max()}")
    return values[indices]


def _sparse(words: Words, columns: int, floats: bool, context: bool) -> bytes:
    """Where words are not zero, the signs of zeros where some float is a negative zero, and the others."""
    keep = _magnitudes(words, floats) != 0
    signs = words[~keep] != 0
    inner = encode(words[keep], int(np.count_nonzero(keep)), floats=floats, memory=None)
    positions = encode_bits(keep, columns, context)
    if not signs.any():
        return bytes([SPARSE]) + positions + inner
    return bytes([SIGNED]) + positions + encode_bits(signs, len(signs), context=False) + inner


def _magnitudes(words: Words, floats: bool) -> Words:
    """Zero for zero, and for the negative zero of floats."""
    return words << words.dtype.type(1) if floats else words


def _from_sparse(cursor: Cursor, count: int, columns: int, dtype: np.dtype[Any], *, signed: bool) -> Words:
    keep = decode_bits(cursor, count, columns)
    kept = int(np.count_nonzero(keep))
    if kept == 0:
        raise Damaged("a sparse array has no word that is not zero")
    words = np.zeros(count, dtype=dtype)
    if signed:
        signs = decode_bits(cursor, count - kept, count - kept)
        words[~keep] = signs.astype(dtype) << dtype.type(8 * dtype.itemsize - 1)
    words[keep] = decode(cursor, kept, kept, dtype, Memory())
    return words


def encode_bits(bits: NDArray[np.bool_], columns: int, context: bool) -> bytes:
    """Bits as integers: one each, or eight each where that is smaller."""
    single = integers.encode(bits.view(np.uint8), columns, _apart(context))
    octets = np.packbits(bits, bitorder="little")
    eight = integers.encode(octets, len(octets), None)
    return min(b"\x01" + single, b"\x08" + eight, key=len)


def decode_bits(cursor: Cursor, count: int, columns: int) -> NDArray[np.bool_]:
    """The bits that `encode_bits` wrote."""
    each = cursor.byte()
    if each == 1:
        bits = integers.decode(cursor, count, columns, Memory())
        if count and int(bits.max()) > 1:
            raise Damaged(f"a bit is {bits.max()}")
        return bits.astype(np.bool_)
    if each == 8:
        octets = integers.decode(cursor, -(-count // 8), -(-count // 8), Memory())
        return np.unpackbits(octets, count=count, bitorder="little").view(np.bool_)
    raise Damaged(f"bits are coded {each} at a time")


def _planes(words: Words, columns: int, floats: bool, context: bool) -> bytes:
    """First the highest byte of each word, then the next; of floats, after the sign went to the lowest bit.

    So an exponent of eight bits is a byte of its own: it takes few values often, the mantissa all equally.
    """
    width = words.dtype.itemsize
    turned = words << words.dtype.type(1) | words >> words.dtype.type(8 * width - 1) if floats else words
    octets = turned.astype(words.dtype, copy=False).view(np.uint8).reshape(-1, width)
    planes = [np.ascontiguousarray(octets[:, place]) for place in reversed(range(width))]
    coded = [integers.encode(plane, columns, _apart(context)) for plane in planes]
    return bytes([FLOATS if floats else PLANES]) + b"".join(coded)


def _from_planes(cursor: Cursor, count: int, columns: int, dtype: np.dtype[Any], *, floats: bool) -> Words:
    octets = np.empty((count, dtype.itemsize), dtype=np.uint8)
    for place in reversed(range(dtype.itemsize)):
        octets[:, place] = integers.decode(cursor, count, columns, Memory())
    words = octets.reshape(-1).view(dtype)
    if not floats:
        return words
    return words >> dtype.type(1) | words << dtype.type(8 * dtype.itemsize - 1)
