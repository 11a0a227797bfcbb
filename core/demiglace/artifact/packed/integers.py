"""Arrays of bytes in the smallest of eight encodings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demiglace.artifact.packed import mixed, predicted
from demiglace.artifact.packed.ans import STRIDE, Stack, Symbols, cost, knots_of, levels_of
from demiglace.artifact.packed.classes import Classes, best_classes
from demiglace.artifact.packed.regression import Memory
from demiglace.artifact.packed.stream import Cursor, Damaged
from demiglace.artifact.packed.ways import best_ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW, PACKED, ORDER0, CLASSED, SMOOTH, MIXED, PREDICTED, CLIPPED = range(8)
NAMES = {
    RAW: "raw",
    PACKED: "bit-packed",
    ORDER0: "entropy-coded",
    CLASSED: "entropy-coded by classes",
    SMOOTH: "entropy-coded smoothly",
    MIXED: "entropy-coded, mixed contexts",
    PREDICTED: "entropy-coded, predicted",
    CLIPPED: "entropy-coded, ends apart",
}
"""The encodings for people."""
_FEW = 1 << 16  # symbols for which the size of their model matters
_WORTH_MIXING = 0.99  # mixing must come below this share: reading takes far longer
_SPARSE = 0.75  # where one integer takes this share, no bell-shaped distribution fits
_WORTH = 0.995  # entropy coding must save this share; what takes whole bits is faster to read


def encode(symbols: Symbols, columns: int, memory: Memory | None) -> bytes:
    """Encode integers.

    Args:
        symbols: at least one, in row-major order.
        columns: of the matrix that they are, its length if they are none.
        memory: of the blocks of the tensor so far; without it nothing is looked for in rows, columns and
            neighbours.
    """
    counts = np.bincount(symbols, minlength=1)
    bits = int(len(counts) - 1).bit_length()
    plain = bytes([RAW]) + symbols.tobytes() if bits == 8 else bytes([PACKED, bits]) + _pack(symbols, bits)
    if cost(counts) > 8 * _WORTH * len(plain):
        smallest = plain
    else:
        smallest = min(plain, _order0(symbols, counts), key=len)
    if memory is None or len(symbols) % columns or bits == 0:
        return smallest
    matrix = symbols.reshape(-1, columns)
    classes = best_classes(matrix, counts)
    if classes is not None:
        smallest = min(smallest, _classed(symbols, classes, len(counts)), key=len)
    usual = int(counts.argmax())
    if counts[usual] < _SPARSE * len(symbols):
        smallest = _predicted(matrix, smallest, memory)
    if 2 * counts[usual] < len(symbols) or min(matrix.shape) > mixed.MOST_LINES:
        return smallest
    by_mixing = bytes([MIXED]) + mixed.encode(matrix, usual)
    return by_mixing if len(by_mixing) < _WORTH_MIXING * len(smallest) else smallest


def _predicted(matrix: Symbols, smallest: bytes, memory: Memory) -> bytes:
    """The matrix coded by prediction, if that is smaller than what is the smallest so far."""
    usual, known = predicted.usual_of(matrix), Memory(memory)
    for way in best_ways(matrix, usual, 8 * len(smallest)):
        coded, moments = predicted.encode(matrix, usual, way, known)
        if len(coded) + 1 < len(smallest):
            smallest = bytes([PREDICTED]) + coded
            memory.become(known)
            memory.keep(moments)
    return smallest


def decode(cursor: Cursor, count: int, columns: int, memory: Memory) -> Symbols:
    """The integers that `encode` wrote; `memory` is of the blocks of the tensor so far."""
    kind = cursor.byte()
    if kind == RAW:
        return np.frombuffer(cursor.take(count), dtype=np.uint8)
    if kind == PACKED:
        return _unpack(cursor, count)
    if kind == MIXED and columns and count % columns == 0:
        return mixed.decode(cursor, count // columns, columns)
    if kind == PREDICTED and columns and count % columns == 0:
        return predicted.decode(cursor, count // columns, columns, memory)
    if kind == CLIPPED:
        return _clipped_from(cursor, count)
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
    tried = [coded, bytes([SMOOTH, len(counts) - 1]) + smooth.bytes()]
    if len(counts) - np.flatnonzero(counts)[0] > STRIDE + 1:
        tried.append(_clipped(symbols, counts))
    return min(tried, key=len)


def _clipped(symbols: Symbols, counts: NDArray[np.int64]) -> bytes:
    """The ends of the range told apart from what is between them, which is coded smoothly.

    Where the largest weight sets the scale, the ends are far more frequent than what is next to them.
    """
    low, high = int(counts.nonzero()[0][0]), len(counts) - 1
    stack, inside = Stack(), (symbols > low) & (symbols < high)
    if inside.any():
        inner = symbols[inside] - np.uint8(low + 1)
        stack.push(inner, knots_of(counts[low + 1 : high]), kinds=high - low - 1, stride=STRIDE)
    which = np.where(inside, 0, 1 + (symbols == high)).astype(np.uint8)
    stack.push(which, levels_of(np.bincount(which, minlength=3)))
    return bytes([CLIPPED, low, high]) + stack.bytes()


def _clipped_from(cursor: Cursor, count: int) -> Symbols:
    low, high = cursor.byte(), cursor.byte()
    if high - low <= STRIDE:
        raise Damaged(f"there is nothing between the ends {low} and {high}")
    stack = Stack.read(cursor)
    which = stack.pop(count, 3)
    inside = which == 0
    symbols = np.where(which == 1, low, high).astype(np.uint8)
    if inside.any():
        symbols[inside] = stack.pop(int(inside.sum()), high - low - 1, stride=STRIDE) + np.uint8(low + 1)
    stack.finish()
    return symbols


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
