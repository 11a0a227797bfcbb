"""Which matrix of some integers is best predicted: their rows, their columns, or the taps of their kernels.

Only the encoder asks; a wrong estimate costs bytes and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demiglace.artifact.packed.ans import Symbols

MOST_COLUMNS = 1024
"""Columns of the predicted matrix, at most: the time of a band grows with their third power."""
SHRINKS = 8
"""Shrinking is by 2**-shrink, below this."""
_TRIED_SHRINKS = (0, 2, 4)
_TAPS = (3, 4, 5, 7, 9, 16, 25, 49)
_SAMPLE = 4096  # rows
_FEWEST = 4  # rows that tell anything
_WORTH_TRYING = 1.04
_BROAD = 16  # columns of a row that tell its own spread


@dataclass(frozen=True)
class Way:
    """How a matrix is turned before it is predicted."""

    #: Columns of the predicted matrix.
    width: int
    #: Whether rows and columns change places before.
    across: bool
    #: How little the products of columns are shrunk.
    shrink: int

    def signed(self, matrix: Symbols, usual: int) -> NDArray[np.int8]:
        """The predicted matrix `[rows, width]`: integers less the usual one, from -128 to 127."""
        turned = matrix.T if self.across else matrix
        return (turned - np.uint8(usual)).reshape(-1, self.width).view(np.int8)

    def symbols(self, signed: NDArray[np.int8], usual: int, rows: int, columns: int) -> Symbols:
        """The integers of the matrix that was turned, row by row."""
        symbols = signed.view(np.uint8) + np.uint8(usual)
        turned = symbols.reshape(columns, rows).T if self.across else symbols
        return np.ascontiguousarray(turned).reshape(-1)


def best_ways(matrix: Symbols, usual: int, bits: float) -> list[Way]:
    """The way that is expected to be the smallest and one that is close to it, or fewer.

    Args:
        matrix: integers `[rows, columns]`.
        usual: the one in their middle, round the circle.
        bits: that they take otherwise; what is far above that is not worth trying.
    """
    found = {way: _entropy(way.signed(matrix, usual), way.shrink) for way in _ways(*matrix.shape)}
    least = min([*found.values(), bits / matrix.size])
    worth = [way for way, each in found.items() if each < _WORTH_TRYING * least]
    return sorted(worth, key=found.__getitem__)[:2]


def _ways(rows: int, columns: int) -> Iterator[Way]:
    turned = [(columns, False), (rows, True)]
    turned += [(taps, False) for taps in _TAPS if columns % taps == 0 and columns > taps]
    for width, across in turned:
        if 2 <= width <= MOST_COLUMNS and rows * columns >= width * max(_FEWEST, width / 2):
            yield from (Way(width, across, shrink) for shrink in _TRIED_SHRINKS)


def _entropy(rows: NDArray[np.int8], shrink: int) -> float:
    """About how many bits an integer of odd rows takes if even rows predict it."""
    real = rows[:: -(-len(rows) // _SAMPLE)].astype(np.float64)
    known, other = real[::2], real[1::2]
    moments = known.T @ known / len(known)
    left = moments * (len(known) / (len(known) + moments.shape[0] / 2**shrink))
    np.fill_diagonal(left, moments.diagonal() * (1 + 1 / len(known)) + 1e-3)
    factor = np.linalg.cholesky(left)
    scaled = np.linalg.solve(factor, other.T) ** 2
    spread = scaled.mean(0) if len(scaled) >= _BROAD else scaled.mean()
    left_over = np.log2(factor.diagonal()).mean() + np.log2(spread + 1e-9).mean() / 2
    return float(left_over + math.log2(2 * math.pi * math.e) / 2)
