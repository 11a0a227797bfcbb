"""Arrays of bytes in the smallest of six encodings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demiglace.artifact.packed import mixed
from demiglace.artifact.packed.ans import STRIDE, Stack, Symbols, cost, knots_of, levels_of
from demiglace.artifact.packed.classes import Classes, best_classes
from demiglace.artifact.packed.stream import Cursor, Damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW, PACKED, ORDER0, CLASSED, SMOOTH, MIXED = range(6)
NAMES = {
    RAW: "raw",
    PACKED: "bit-packed",
    ORDER0: "entropy-coded",
    CLASSED: "entropy-coded by classes",
    SMOOTH: "entropy-coded smoothly",
    MIXED: "entropy-coded, mixed contexts",
}
"""The encodings for people."""
_FEW = 1 << 16  # symbols for which the size of their model matters
_WORTH_MIXING = 0.99  # mixing must come below this share: reading takes far longer
_WORTH = 0.995  # entropy coding must save this share; what takes whole bits is faster to read


def encode(symbols: Symbols, columns: int, context: bool) -> bytes:
    """Encode integers.

    Args:
        symbols: at least one, in row-major order.
        columns: of the matrix that they are, its length if they are none.
        context: whether to look for rows and columns that are better coded apart, and, where one integer
            is more frequent than all others, to mix what its neighbours say of each.
    """
    counts = np.bincount(symbols, minlength=1)
    bits = int(len(counts) - 1).bit_length()
    plain = bytes([RAW]) + symbols.tobytes() if bits == 8 else bytes([PACKED, bits]) + _pack(symbols, bits)
    if cost(counts) > 8 * _WORTH * len(plain):
        smallest = plain
    else:
        smallest = min(plain, _order0(symbols, counts), key=len)
    if not context or len(symbols) % columns or bits == 0:
        return smallest
    matrix = symbols.reshape(-1, columns)
    classes = best_classes(matrix, counts)
    if classes is not None:
        smallest = min(smallest, _classed(symbols, classes, len(counts)), key=len)
    usual = int(counts.argmax())
    if 2 * counts[usual] < len(symbols) or min(matrix.shape) > mixed.MOST_LINES:
        return smallest
    by_mixing = bytes([MIXED]) + mixed.encode(matrix, usual)
    return by_mixing if len(by_mixing) < _WORTH_MIXING * len(smallest) else smallest


def decode(cursor: Cursor, count: int, columns: int) -> Symbols:
    """The integers that `encode` wrote."""
    kind = cursor.byte()
    if kind == RAW:
        return np.frombuffer(cursor.take(count), dtype=np.uint8)
    if kind == PACKED:
        return _unpack(cursor, count)
    if kind == MIXED and columns and count % columns == 0:
        return mixed.decode(cursor, count // columns, columns)
    kinds = cursor.byte() + 1
    if kind in {ORDER0, SMOOTH}:
        stack = Stack.read(cursor)
        symbols = stack.pop(count, kinds, stride=STRIDE if kind == SMOOTH else 1)
    elif kind == CLASSED and columns and count % columns == 0:
        rows_in, columns_in = cursor.byte(), cursor.byte()
        stack = Stack.read(cursor)
        symbols = _pop_classed(stack, (count // columns, columns), (rows_in, columns_in), kinds)
    else:
        raise Damaged(f"integers have the unknown encoding {kind}")
    stack.finish()
    return symbols


def _pack(symbols: Symbols, bits: int) -> bytes:
    """The low bits of each symbol, one after the other, the first in the lowest bits."""
    fields = symbols[:, None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(fields, bitorder="little").tobytes()


def _unpack(cursor: Cursor, count: int) -> Symbols:
    bits = cursor.byte()
    if bits > 7:
        raise Damaged(f"integers are packed in {bits} bits")
    packed = np.frombuffer(cursor.take(-(-count * bits // 8)), dtype=np.uint8)
    symbols = np.zeros(count, dtype=np.uint8)
    fields = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    for place in range(bits):
        symbols |= fields[:, place] << place
    return symbols


def _order0(symbols: Symbols, counts: NDArray[np.int64]) -> bytes:
    exact = Stack()
    exact.push(symbols, levels_of(counts))
    coded = bytes([ORDER0, len(counts) - 1]) + exact.bytes()
    if len(symbols) > _FEW or len(counts) < 2 * STRIDE:
        return coded
    smooth = Stack()
    smooth.push(symbols, knots_of(counts), kinds=len(counts), stride=STRIDE)
    return min(coded, bytes([SMOOTH, len(counts) - 1]) + smooth.bytes(), key=len)


def _classed(symbols: Symbols, classes: Classes, kinds: int) -> bytes:
    stack = Stack()
    sorted_symbols, ends = symbols[classes.order()], np.cumsum(classes.sizes())
    for start, end in reversed(list(zip([0, *ends], ends, strict=False))):
        part = sorted_symbols[start:end]
        if len(part):
            stack.push(part, levels_of(np.bincount(part, minlength=kinds)))
    for ids, most in ((classes.columns, classes.columns_in), (classes.rows, classes.rows_in)):
        stack.push(ids, levels_of(np.bincount(ids, minlength=most)))
    return bytes([CLASSED, kinds - 1, classes.rows_in, classes.columns_in]) + stack.bytes()


def _pop_classed(stack: Stack, shape: tuple[int, int], most: tuple[int, int], kinds: int) -> Symbols:
    if not (1 <= most[0] <= 16 and 1 <= most[1] <= 16):
        raise Damaged(f"integers have {most[0]} x {most[1]} classes")
    rows, columns = stack.pop(shape[0], most[0]), stack.pop(shape[1], most[1])
    classes = Classes(rows, columns, *most)
    symbols = np.empty(shape[0] * shape[1], dtype=np.uint8)
    parts = [stack.pop(size, kinds) for size in classes.sizes().tolist() if size]
    symbols[classes.order()] = np.concatenate(parts)
    return symbols
