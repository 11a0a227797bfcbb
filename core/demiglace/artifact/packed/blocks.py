"""Tensors and masks as blocks: pieces of at most a million words, each decoded by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.artifact.packed import words
from demiglace.artifact.packed.regression import Memory
from demiglace.artifact.packed.stream import Cursor, Damaged
from demiglace.artifact.tensor_file import raw, torch_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LIMIT = 1 << 20
"""Words of a block."""
_AT_ONCE = 1 << 16  # integers that are packed or unpacked together, which takes eight bytes and more each
MEANS = 1 << 16
"""Bytes of tensors that a byte of the file can stand for, at most."""


@dataclass(frozen=True)
class Fields:
    """Small integers that a tensor of bytes holds packed, row by row."""

    #: 1 to 8.
    bits: int
    #: Integers of a row.
    columns: int


@dataclass(frozen=True)
class Piece:
    """Consecutive words of a tensor, whole rows where a row is no larger than a block."""

    start: int
    stop: int
    columns: int


def pieces(rows: int, columns: int) -> Iterator[Piece]:
    """The pieces of a matrix, from its first word to its last."""
    whole = 0 < columns <= LIMIT
    step = LIMIT // columns * columns if whole else LIMIT
    for start in range(0, rows * columns, step):
        stop = min(start + step, rows * columns)
        yield Piece(start, stop, columns if whole else stop - start)


@dataclass(frozen=True)
class Layout:
    """A tensor as a matrix of words."""

    rows: int
    columns: int
    word: np.dtype[Any]
    floats: bool
    #: Bytes of the tensor.
    nbytes: int

    @classmethod
    def of(cls, dtype: str, shape: tuple[int, ...]) -> Layout:
        """The first dimension makes rows; a tensor of one dimension is one row."""
        kind, count = torch_dtype(dtype), math.prod(shape)
        parts = 2 if kind.is_complex or kind.itemsize > 8 else 1
        width = kind.itemsize // parts
        columns = parts * (math.prod(shape[1:]) if len(shape) > 1 else count)
        rows = shape[0] if len(shape) > 1 else 1
        floats = (kind.is_floating_point or kind.is_complex) and width > 1
        return cls(rows, columns, np.dtype(f"<u{width}"), floats, count * kind.itemsize)


def encoded(tensor: Tensor, layout: Layout, context: bool) -> Iterator[bytes]:
    """The blocks of a tensor."""
    content = np.frombuffer(raw(tensor), dtype=layout.word)
    memory = Memory() if context else None
    for piece in pieces(layout.rows, layout.columns):
        part = content[piece.start : piece.stop]
        block = words.encode(part, piece.columns, floats=layout.floats, memory=memory)
        yield _with_means(block, part.nbytes)


def encoded_fields(tensor: Tensor, fields: Fields, context: bool) -> Iterator[bytes]:
    """The blocks of the integers that a tensor `[rows, bytes]` holds."""
    memory = Memory() if context else None
    for piece in pieces(tensor.shape[0], fields.columns):
        symbols = _unpacked(tensor, fields, piece)
        block = words.encode(symbols, piece.columns, floats=False, memory=memory)
        yield _with_means(block, len(symbols))


def encoded_mask(keep: Tensor, weight: Tensor | None, context: bool) -> Iterator[bytes]:
    """The blocks of a mask: where it is not what the weight's zeros say."""
    layout = Layout.of("bool", tuple(keep.shape))
    bits = _differences(keep, weight)
    for piece in pieces(layout.rows, layout.columns):
        part = bits[piece.start : piece.stop]
        yield _with_means(words.encode_bits(part, piece.columns, context), len(part))


def _with_means(block: bytes, stands_for: int) -> bytes:
    """Zeros are added until the block's bytes could stand for so many."""
    return block.ljust(-(-stands_for // MEANS), b"\0")


def decode_into(tensor: Tensor, layout: Layout, blocks: Iterator[bytes]) -> None:
    """Fill a contiguous tensor on the CPU from its blocks.

    Raises:
        Damaged: when a block is not what the format says.
    """
    content: NDArray[Any] = np.frombuffer(raw(tensor), dtype=layout.word)
    memory = Memory()
    for piece in pieces(layout.rows, layout.columns):
        cursor = Cursor(next(blocks))
        count = piece.stop - piece.start
        content[piece.start : piece.stop] = words.decode(cursor, count, piece.columns, layout.word, memory)
        _finish(cursor)


def decode_fields_into(tensor: Tensor, fields: Fields, blocks: Iterator[bytes]) -> None:
    """Fill a tensor `[rows, bytes]` with the packed integers of its blocks."""
    import torch

    from demiglace.quantization.packing import pack

    memory = Memory()
    for piece in pieces(tensor.shape[0], fields.columns):
        cursor = Cursor(next(blocks))
        symbols = words.decode(cursor, piece.stop - piece.start, piece.columns, np.dtype("u1"), memory)
        _finish(cursor)
        signed = symbols.astype(np.uint8) - np.uint8(1 << fields.bits - 1)
        rows = torch.from_numpy(signed.view(np.int8)).reshape(-1, fields.columns)
        first, step = piece.start // fields.columns, max(1, _AT_ONCE // fields.columns)
        for start, part in zip(range(first, first + len(rows), step), rows.split(step), strict=True):
            tensor[start : start + len(part)] = pack(part, fields.bits)


def decoded_mask(weight: Tensor | None, shape: tuple[int, ...], blocks: Iterator[bytes]) -> Tensor:
    """The mask of these blocks."""
    import torch

    layout = Layout.of("bool", shape)
    keep = torch.zeros(shape, dtype=torch.bool)
    content = np.frombuffer(raw(keep), dtype=np.bool_)
    for piece in pieces(layout.rows, layout.columns):
        cursor = Cursor(next(blocks))
        content[piece.start : piece.stop] = words.decode_bits(cursor, piece.stop - piece.start, piece.columns)
        _finish(cursor)
    return keep if weight is None else keep ^ (weight != 0)


def _finish(cursor: Cursor) -> None:
    if not cursor.rest_is_padding():
        raise Damaged("a block is longer than its words")


def _differences(keep: Tensor, weight: Tensor | None) -> NDArray[np.bool_]:
    other = keep if weight is None else keep ^ (weight.detach() != 0)
    return np.frombuffer(raw(other), dtype=np.bool_)


def fields_fit(tensor: Tensor, fields: Fields) -> bool:
    """Whether a tensor of bytes `[rows, bytes]` is its integers and nothing else."""
    import torch

    from demiglace.quantization.packing import pack, packed_length, unpack

    length = packed_length(fields.columns, fields.bits)
    if not 0 < fields.columns <= LIMIT or tensor.dim() != 2 or tensor.shape[1] != length:
        return False
    if 8 * length == fields.bits * fields.columns:
        return True
    step = max(1, _AT_ONCE // fields.columns)
    parts = tensor.detach().cpu().split(step)
    return all(
        torch.equal(part, pack(unpack(part, fields.bits, fields.columns), fields.bits)) for part in parts
    )


def _unpacked(tensor: Tensor, fields: Fields, piece: Piece) -> NDArray[np.uint8]:
    """Integers of some rows, the smallest possible one as 0."""
    from demiglace.quantization.packing import unpack

    rows = tensor[piece.start // fields.columns : piece.stop // fields.columns].detach()
    parts = (part.cpu().contiguous() for part in rows.split(max(1, _AT_ONCE // fields.columns)))
    signed = np.concatenate([unpack(part, fields.bits, fields.columns).reshape(-1) for part in parts])
    return signed.view(np.uint8) + np.uint8(1 << fields.bits - 1)
