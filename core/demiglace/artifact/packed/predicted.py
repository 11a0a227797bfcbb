"""A matrix of integers, each coded by its distance from what the row's columns before predict.

Rows come in bands, and in a band column after column: the moments of the rows before say what a column is
expected to be, and the residuals of the row so far how far it may be from that. What comes more or less often
than the distributions say, as the largest integer of a clipped range, is learned from band to band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from demiglace.artifact.packed.ans import Stack, Symbols
from demiglace.artifact.packed.regression import FRACTION, Integers, Memory, Moments
from demiglace.artifact.packed.stream import Cursor, Damaged, varint
from demiglace.artifact.packed.student import LEVELS, MOST_CENTRE, THRESHOLDS, centres, deviation
from demiglace.artifact.packed.tables import Bell, Table
from demiglace.artifact.packed.ways import MOST_COLUMNS, SHRINKS, Way

Rows: TypeAlias = NDArray[np.int8]
Numbers: TypeAlias = NDArray[np.int32]
Answer: TypeAlias = Callable[[Table, Numbers, Integers | None], Integers]
"""From a table, its row for each place, and the symbols, if they are known, to the symbols."""

_FIRST, _MOST = 32, 4096  # rows of a band
_RESIDUAL = 6  # binary digits of residuals behind the point
_FAR = 128 << _RESIDUAL
_OWN = 20  # columns that a row's expected deviation counts for
_OUTLIER = 64 << FRACTION  # a squared residual relative to its variance is at most this


def bands(rows: int, before: int) -> Iterator[slice]:
    """The rows of each band, where so many were known before: a quarter of what is known."""
    start = 0
    while start < rows:
        stop = min(rows, start + min(_MOST, max(_FIRST, (before + start) // 4)))
        yield slice(start, stop)
        start = stop


def code(rows: Rows, bell: Bell, moments: Moments, answer: Answer, known: Rows | None) -> None:
    """Code rows `[n, width]` into `rows`, band after band; `moments` take them in."""
    for band in bands(len(rows), moments.rows):
        part = None if known is None else known[band].astype(np.int64)
        table = Table(bell, moments)
        rows[band] = _Band(bell, moments, table, band.stop - band.start).run(answer, part)
        moments.add(rows[band], bell.low, table.expected())


class _Band:
    """Some rows, column after column."""

    def __init__(self, bell: Bell, moments: Moments, table: Table, count: int) -> None:
        self._bell, self._table = bell, table
        spread = deviation(bell.level)
        # A product, which is rounded alike everywhere; a power need not be.
        self._coefficients, self._variances = moments.factors(spread * spread, bell.shrink)
        self._inverse = (1 << 32) // self._variances
        self._residuals = np.zeros((len(self._variances), count))
        self._numbers = np.full((LEVELS, 2 * MOST_CENTRE + 1), -1, dtype=np.int32)
        self._spread = np.full(count, _OWN << FRACTION, dtype=np.int64)

    def run(self, answer: Answer, known: Integers | None) -> Integers:
        """The integers of the band `[count, width]`."""
        columns = [
            self._column(number, answer, None if known is None else known[:, number])
            for number in range(len(self._variances))
        ]
        return np.stack(columns, axis=1)

    def _column(self, number: int, answer: Answer, known: Integers | None) -> Integers:
        exact = self._coefficients[number, :number] @ self._residuals[:number]
        predicted = np.clip(exact.astype(np.int64) >> FRACTION, -_FAR, _FAR)
        variances = self._spread // (_OWN + number) * self._variances[number]
        levels = np.searchsorted(THRESHOLDS, variances, side="right")
        numbers = self._rows_of(levels, centres(predicted, levels))
        found = answer(self._table, numbers, None if known is None else known - self._bell.low)
        values = found + self._bell.low
        residual = (values << _RESIDUAL) - predicted
        self._residuals[number] = residual
        self._spread += np.minimum(residual * residual * self._inverse[number] >> 20, _OUTLIER)
        return values

    def _rows_of(self, levels: Integers, at: Integers) -> Numbers:
        """The row of the table for each level and centre, which is made where there is none."""
        numbers = self._numbers[levels, at]
        if numbers.min() < 0:
            pairs = np.unique(np.stack([levels, at])[:, numbers < 0], axis=1)
            self._numbers[pairs[0], pairs[1]] = self._table.add(pairs)
            numbers = self._numbers[levels, at]
        self._table.use(numbers)
        return numbers


def encode(matrix: Symbols, usual: int, way: Way, memory: Memory) -> tuple[bytes, Moments]:
    """Encode a matrix, and give the moments that decoding leaves.

    Args:
        matrix: integers `[rows, columns]`, not all the same.
        usual: the one in their middle; see `usual_of`.
        way: how they are turned before.
        memory: of the blocks before; unchanged.
    """
    signed = way.signed(matrix, usual)
    level = np.searchsorted(THRESHOLDS, int(signed.var() * (1 << 24)), side="right")
    bell = Bell(way.shrink, int(level), int(signed.min()), int(signed.max()))
    moments, parts = memory.of(way.width), []

    def answer(table: Table, numbers: Numbers, known: Integers | None) -> Integers:
        if known is None:
            raise ValueError("the integers are not known")
        parts.append((table, numbers, known.astype(np.uint8)))
        return known

    code(np.empty_like(signed), bell, moments, answer, signed)
    stack = Stack()
    for table, numbers, symbols in reversed(parts):
        stack.push_shares(symbols, table.shares(numbers))
    head = bytes([usual, way.across, way.shrink, bell.level, bell.low + 128, bell.high + 128])
    return head + varint(way.width) + stack.bytes(), moments


def decode(cursor: Cursor, rows: int, columns: int, memory: Memory) -> Symbols:
    """The integers of a matrix, row by row; `memory` keeps what they told.

    Raises:
        Damaged: when the bytes are no such encoding.
    """
    usual, across, shrink, level, low, high = cursor.take(6)
    way = Way(cursor.varint(), across == 1, shrink)
    length = rows if across else columns
    if across > 1 or shrink >= SHRINKS or level >= LEVELS or low >= high:
        raise Damaged("predicted integers begin with what they cannot")
    if not 2 <= way.width <= MOST_COLUMNS or length % way.width:
        raise Damaged(f"predicted integers have {way.width} columns")
    stack, moments = Stack.read(cursor), memory.of(way.width)

    def answer(table: Table, numbers: Numbers, _known: Integers | None) -> Integers:
        return stack.pop_shares(table.shares(numbers)).astype(np.int64)

    signed = np.empty((rows * columns // way.width, way.width), dtype=np.int8)
    code(signed, Bell(shrink, level, low - 128, high - 128), moments, answer, None)
    stack.finish()
    memory.keep(moments)
    return way.symbols(signed, usual, rows, columns)


def usual_of(matrix: Symbols) -> int:
    """The middle of the integers, round the circle: the byte of -1 is 255."""
    first = int(np.bincount(matrix.reshape(-1)).argmax())
    return first + round(float((matrix - np.uint8(first)).view(np.int8).mean())) & 255
