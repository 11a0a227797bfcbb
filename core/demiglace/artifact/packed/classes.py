"""Rows and columns of a matrix put into classes whose integers are coded apart.

Outputs and inputs of a layer differ in how far their weights spread and how many of them are zero; the
class of a row and of a column is a context that the decoder knows before the first integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demiglace.artifact.packed.ans import Symbols, cost

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIED = ((1, 4), (4, 1), (4, 4), (1, 16), (16, 1), (8, 8), (16, 16))
_MODEL_BITS = 3  # about what a symbol's frequency takes


@dataclass(frozen=True)
class Classes:
    """The class of each row and of each column."""

    rows: Symbols
    columns: Symbols
    #: How many classes there are of each.
    rows_in: int
    columns_in: int

    def _contexts(self) -> NDArray[np.uint8]:
        return np.add.outer(self.rows * np.uint8(self.columns_in), self.columns).reshape(-1)

    def order(self) -> NDArray[np.int64]:
        """Places sorted by class of row, class of column, and then as they stand."""
        return np.argsort(self._contexts(), kind="stable")

    def sizes(self) -> NDArray[np.int64]:
        """How many integers have each pair of classes."""
        rows = np.bincount(self.rows, minlength=self.rows_in)
        columns = np.bincount(self.columns, minlength=self.columns_in)
        return np.multiply.outer(rows, columns).reshape(-1)

    def bits(self, matrix: Symbols, kinds: int) -> float:
        """About what the matrix takes with these classes."""
        own = sum(cost(np.bincount(ids)) for ids in (self.rows, self.columns))
        joint = self._contexts().astype(np.int32) * kinds + matrix.reshape(-1)
        counts = np.bincount(joint, minlength=self.rows_in * self.columns_in * kinds).reshape(-1, kinds)
        return own + sum(cost(each) + _MODEL_BITS * np.count_nonzero(each) for each in counts if each.any())


def best_classes(matrix: Symbols, counts: NDArray[np.int64]) -> Classes | None:
    """The cheapest classes, from how far integers are from the most frequent one; `None` for no gain.

    Args:
        matrix: integers `[rows, columns]`.
        counts: how often each comes.
    """
    kinds = len(counts)
    # Round the circle: the byte of -1 is 255.
    distance = np.abs((matrix - np.uint8(counts.argmax())).view(np.int8).astype(np.int16))
    rows, columns = distance.mean(1, dtype=np.float64), distance.mean(0, dtype=np.float64)
    best: Classes | None = None
    least: float = cost(counts) + _MODEL_BITS * np.count_nonzero(counts)
    for rows_in, columns_in in _TRIED:
        if rows_in > len(rows) or columns_in > len(columns):
            continue
        tried = Classes(_ranked(rows, rows_in), _ranked(columns, columns_in), rows_in, columns_in)
        bits = tried.bits(matrix, kinds)
        if bits < least:
            best, least = tried, bits
    return best


def _ranked(values: NDArray[np.float64], classes: int) -> Symbols:
    """Classes of equal size by rank."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return (ranks * classes // len(values)).astype(np.uint8)
