"""Bytes read with bounds, and integers of variable length (LEB128)."""

from __future__ import annotations


class Damaged(ValueError):
    """The bytes are not what the format says; the reader of the file adds where."""


class Cursor:
    """Reads through bytes and never past their end."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def take(self, length: int) -> memoryview:
        """The next bytes.

        Raises:
            Damaged: when there are fewer.
        """
        if length < 0 or length > len(self._content) - self._at:
            raise Damaged(f"{length} bytes are wanted, {len(self._content) - self._at} are left")
        self._at += length
        return self._content[self._at - length : self._at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next integer of variable length."""
        value, shift = 0, 0
        while shift < 64:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise Damaged("an integer has more than 64 bits")

    def rest_is_padding(self) -> bool:
        """Whether only zero bytes are left."""
        return not any(self._content[self._at :])


def varint(value: int) -> bytes:
    """An integer from 0, seven bits a byte, the low ones first; the last byte is below 128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
