"""What rows of integers told of the rows to come: each column predicted from the columns before it.

Columns of an embedding, taps of a kernel and inputs of a layer are correlated. Their second moments are
exact sums of integers. From these come, by elimination, the coefficients of the best linear prediction of
each column from the residuals of those before it, and the variance that is left: the decomposition
C = L D L^T. Sums, products and quotients of binary64 numbers are rounded one by one here, in a fixed order,
which every machine does alike; products of matrices are only taken of integers, which are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

FRACTION = 12
"""Binary digits of coefficients and variances behind the point."""
_OWN = 8  # rows that the first variance counts for
_LARGEST = 16 << FRACTION  # coefficient
_VARIANCES = 1 << FRACTION - 8, 1 << FRACTION + 14


@dataclass
class Moments:
    """Second moments of rows, and how often each integer came and was expected."""

    width: int
    rows: int = 0
    sums: NDArray[np.float64] = field(init=False)
    #: By integers from -128.
    seen: Integers = field(init=False)
    #: In 2**-8.
    expected: Integers = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.width, self.width))
        self.seen = np.zeros(256, dtype=np.int64)
        self.expected = np.zeros(256, dtype=np.int64)

    def copy(self) -> Moments:
        """The same, to go on with apart."""
        other = Moments(self.width, self.rows)
        other.sums, other.seen, other.expected = self.sums.copy(), self.seen.copy(), self.expected.copy()
        return other

    def add(self, rows: NDArray[np.int8], low: int, expected: Integers) -> None:
        """Take in rows `[n, width]`, and how often each integer from `low` was expected in them."""
        inside = slice(low + 128, low + 128 + len(expected))
        self.seen[inside] += np.bincount(rows.reshape(-1).astype(np.int64) - low, minlength=len(expected))
        self.expected[inside] += expected
        real = rows.astype(np.float64)
        self.sums += real.T @ real
        self.rows += len(rows)

    def factors(self, variance: float, shrink: int) -> tuple[NDArray[np.float64], Integers]:
        """Coefficients `[width, width]`, below the diagonal, and variances left `[width]`, both in 2**-12.

        Args:
            variance: of a column before any row is known.
            shrink: products of different columns are taken by n / (n + width / 2**shrink) after n rows.
        """
        left = self.sums * (self.rows / (self.rows + self.width / (1 << shrink)))
        np.fill_diagonal(left, self.sums.diagonal() + _OWN * variance)
        coefficients = np.zeros_like(left)
        for column in range(self.width - 1):
            below = left[column + 1 :, column] / left[column, column]
            coefficients[column + 1 :, column] = below
            left[column + 1 :, column + 1 :] -= np.multiply.outer(below, left[column, column + 1 :])
        variances = left.diagonal() / (self.rows + _OWN)
        fixed = np.clip(np.rint(coefficients * (1 << FRACTION)), -_LARGEST, _LARGEST)
        return fixed, np.clip(np.rint(variances * (1 << FRACTION)), *_VARIANCES).astype(np.int64)


class Memory:
    """Moments of the blocks of one tensor so far, by the width of their rows."""

    def __init__(self, other: Memory | None = None) -> None:
        self._moments: dict[int, Moments] = {} if other is None else dict(other._moments)

    def of(self, width: int) -> Moments:
        """A copy of what is known."""
        return self._moments[width].copy() if width in self._moments else Moments(width)

    def keep(self, moments: Moments) -> None:
        """Know this from now on."""
        self._moments[moments.width] = moments

    def become(self, other: Memory) -> None:
        """Know what the other one knows."""
        self._moments = dict(other._moments)
