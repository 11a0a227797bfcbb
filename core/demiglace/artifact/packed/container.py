"""The file around the blocks: a prelude, checked blocks one after the other, and the header at the end.

See `docs/reference/packed-format.md`.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

from demiglace.artifact.packed.stream import Damaged, varint
from demiglace.artifact.packed.text import compressed, text_of
from demiglace.errors import ArtifactError

MAGIC = b"\x89DGZ\r\n\x1a\n"
VERSION = 1
SUFFIX = ".dgz"

_PRELUDE = struct.Struct("<8sHHIIQ32s")  # and four bytes of checksum
_START = _PRELUDE.size + 4


def framed(block: bytes) -> bytes:
    """A block as the file has it, with its length and checksum."""
    length = varint(len(block))
    check = zlib.crc32(block, zlib.crc32(length))
    return length + check.to_bytes(4, "little") + block


class BlockWriter:
    """Writes a packed file from its first block to its header, then the prelude."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        file.write(bytes(_START))

    def write(self, block: bytes) -> int:
        """Write a block; return how many bytes of the file it takes."""
        return self._file.write(framed(block))

    def finish(self, header: dict[str, Any], digest: str) -> int:
        """Write the header and the prelude; return the size of the file."""
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        content = compressed(text)
        self._file.write(content + zlib.crc32(content).to_bytes(4, "little"))
        size = self._file.tell()
        prelude = _PRELUDE.pack(MAGIC, VERSION, 0, len(text), len(content), size, bytes.fromhex(digest))
        self._file.seek(0)
        self._file.write(prelude + zlib.crc32(prelude).to_bytes(4, "little"))
        return size


@dataclass(frozen=True)
class Prelude:
    """The first bytes of a packed file."""

    #: Bytes of the header's text, and of what it is compressed to.
    text: int
    compressed: int
    #: Bytes of the file.
    size: int
    #: SHA-256 of the model's state.
    digest: str


class BlockReader:
    """Reads a packed file's header, then its blocks; nothing is decoded before its checksum was compared.

    The checksums of all blocks are compared with the header's: decoding may take minutes.
    """

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self._file = file
        self.prelude = _prelude(file, path)
        self._end = self.prelude.size - self.prelude.compressed - 4

    def header(self) -> Any:
        """The header's JSON."""
        self._file.seek(self._end)
        content = self._file.read(self.prelude.compressed)
        if zlib.crc32(content).to_bytes(4, "little") != self._file.read(4):
            raise Damaged("the header's checksum differs")
        self._check_blocks()
        return json.loads(text_of(content, self.prelude.text))

    def _check_blocks(self) -> None:
        self._file.seek(_START)
        while self._file.tell() < self._end:
            self.block()
        self._file.seek(_START)

    def block(self) -> bytes:
        """The next block."""
        prefix = bytearray()
        while not prefix or prefix[-1] >= 0x80:
            if len(prefix) > 5 or self._file.tell() >= self._end:
                raise Damaged("a block has no length")
            prefix += self._file.read(1)
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(prefix))
        if length > self._end - self._file.tell() - 4:
            raise Damaged("a block ends beyond the last one")
        check = self._file.read(4)
        block = self._file.read(length)
        if zlib.crc32(block, zlib.crc32(prefix)).to_bytes(4, "little") != check:
            raise Damaged("a block's checksum differs")
        return block

    def position(self) -> int:
        """Where the next block starts."""
        return self._file.tell()

    def finish(self) -> None:
        """Assure that every block was read."""
        if self._file.tell() != self._end:
            raise Damaged("there are more blocks than tensors")


def _prelude(file: BufferedReader, path: Path) -> Prelude:
    size = os.fstat(file.fileno()).st_size
    content = file.read(_START)
    if not content.startswith(MAGIC):
        raise ArtifactError(f"{path} is not a packed model", hint="give a file that export.packed wrote")
    if len(content) < _START:
        raise Damaged("it ends in its first bytes")
    _, version, reserved, text, length, stated, digest = _PRELUDE.unpack(content[:-4])
    if version != VERSION:
        raise ArtifactError(
            f"{path} has format version {version}; this demiglace reads version {VERSION}",
            hint="install the demiglace that wrote it, or a newer one",
        )
    if zlib.crc32(content[:-4]).to_bytes(4, "little") != content[-4:] or reserved:
        raise Damaged("its first bytes have another checksum")
    if size != stated:
        raise Damaged(f"it has {size} bytes and should have {stated}")
    if length > size - _START - 4:
        raise Damaged("its header is larger than the file")
    return Prelude(text, length, size, digest.hex())
