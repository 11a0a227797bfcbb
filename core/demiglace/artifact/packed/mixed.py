"""A matrix of integers as bits by mixed probabilities: smaller than any other encoding, and slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demiglace.artifact.packed.ans import Stack, Symbols
from demiglace.artifact.packed.lines import Lines
from demiglace.artifact.packed.mixture import ONE, Integers
from demiglace.artifact.packed.stream import Cursor, Damaged, varint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FARTHEST = 64  # lines between two that are compared
MOST_LINES = 1 << 13
"""Lines of a matrix, at most: each takes a fifth of a millisecond, however short it is."""


@dataclass
class _Decisions:
    """Every bit of a matrix with its probability, in order."""

    across: bool
    lag: int
    bits: list[NDArray[np.uint8]]
    probabilities: list[NDArray[np.uint16]]

    def cost(self) -> float:
        """Bits of the file that they take."""
        shares = np.concatenate(self.probabilities) / ONE
        return -float(np.log2(np.where(np.concatenate(self.bits) == 1, shares, 1 - shares)).sum())


def encode(matrix: Symbols, usual: int) -> bytes:
    """Encode a matrix along its rows or its columns, whichever is smaller.

    Args:
        matrix: integers `[rows, columns]`; at least one of both is at most `MOST_LINES`, none is 0.
        usual: the one that comes most often.
    """
    signed = (matrix - np.uint8(usual)).view(np.int8).astype(np.int64)
    classes = int(np.abs(signed).max()).bit_length() - 1
    ways = [across for across in (False, True) if signed.shape[across] <= MOST_LINES]
    best = min((_decided(signed, classes, across) for across in ways), key=_Decisions.cost)
    stack = Stack()
    for bits, probabilities in zip(reversed(best.bits), reversed(best.probabilities), strict=True):
        stack.push_bits(bits, probabilities)
    head = bytes([usual, max(0, classes), best.across])
    return head + varint(best.lag) + stack.bytes()


def decode(cursor: Cursor, rows: int, columns: int) -> Symbols:
    """The integers of a matrix, row by row.

    Raises:
        Damaged: when the bytes are no such encoding.
    """
    usual, classes, across, lag = cursor.byte(), cursor.byte(), cursor.byte(), cursor.varint()
    count, width = (columns, rows) if across else (rows, columns)
    if classes > 7 or across > 1 or not 1 <= lag <= _FARTHEST or count > MOST_LINES:
        raise Damaged("mixed integers begin with what they cannot")
    stack = Stack.read(cursor)

    def answer(probabilities: Integers, _known: Integers | None) -> Integers:
        return stack.pop_bits(probabilities).astype(np.int64)

    lines = Lines(count, width, lag, classes)
    signed = np.empty((count, width), dtype=np.int8)
    for number in range(count):
        signed[number] = lines.line(number, answer)
    stack.finish()
    symbols = signed.view(np.uint8) + np.uint8(usual)
    return np.ascontiguousarray(symbols.T if across else symbols).reshape(-1)


def _decided(signed: Integers, classes: int, across: bool) -> _Decisions:
    """All decisions about a matrix, taken along its rows or across them, column after column."""
    matrix = np.ascontiguousarray(signed.T) if across else signed
    decisions = _Decisions(across, _lag(matrix != 0), [], [])

    def answer(probabilities: Integers, known: Integers | None) -> Integers:
        if known is None:
            raise ValueError("the integers are not known")
        decisions.bits.append(known.astype(np.uint8))
        decisions.probabilities.append(probabilities.astype(np.uint16))
        return known

    count, width = matrix.shape
    lines = Lines(count, width, decisions.lag, classes)
    for number, line in enumerate(matrix):
        lines.line(number, answer, line)
    return decisions


def _lag(present: NDArray[np.bool_]) -> int:
    """The distance from 2 at which lines have most in common, in how many of all pairs; 1 where none can."""
    count = len(present)
    common = {
        lag: np.count_nonzero(present[lag:] & present[:-lag]) / (count - lag)
        for lag in range(2, min(_FARTHEST, count // 2) + 1)
    }
    return max(common, key=common.__getitem__, default=1)
