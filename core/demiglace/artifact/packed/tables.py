"""Frequencies of all integers around a predicted value, corrected by how often each one came before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.artifact.packed.ans import shares_of
from demiglace.artifact.packed.student import masses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demiglace.artifact.packed.ans import Shares
    from demiglace.artifact.packed.regression import Integers, Moments

_PRIOR, _ENDS = 16, 1  # observations that the expected frequency of an integer counts for, and of both ends
_LEAST, _GREATEST = 1 << 12, 1 << 20  # of seen to expected, in 2**-16


@dataclass(frozen=True)
class Bell:
    """What a block says before its integers."""

    #: How little the products of columns are shrunk.
    shrink: int
    #: Level of the deviation before any row is known.
    level: int
    #: The smallest and the largest integer, less the usual one.
    low: int
    high: int


class Table:
    """Shares of all integers by level and centre, weighted by how often they came so far."""

    def __init__(self, bell: Bell, moments: Moments) -> None:
        self._bell = bell
        inside = slice(bell.low + 128, bell.high + 129)
        seen, expected = moments.seen[inside], moments.expected[inside]
        prior = np.full(len(seen), _PRIOR)
        prior[[0, -1]] = _ENDS
        self._weights = np.clip((seen + prior << 24) // (expected + (prior << 8)), _LEAST, _GREATEST)
        self._rows = np.empty((0, len(seen)), dtype=np.float32)  # integers up to 2**24: exact
        self._times = np.zeros(0, dtype=np.int64)

    def add(self, pairs: Integers) -> NDArray[np.int32]:
        """Add rows for pairs of level and centre `[2, n]`; give their numbers."""
        low, high, first = self._bell.low, self._bell.high, len(self._rows)
        rows = [shares_of((masses(*pair, low, high) * self._weights >> 16) + 1) for pair in pairs.T.tolist()]
        self._rows = np.concatenate([self._rows, np.array(rows, dtype=np.float32)])
        self._times = np.concatenate([self._times, np.zeros(len(rows), dtype=np.int64)])
        return np.arange(first, first + len(rows), dtype=np.int32)

    def shares(self, numbers: NDArray[Any]) -> Shares:
        """The shares `[n, kinds]` of the rows with these numbers."""
        return self._rows[numbers].astype(np.float64)

    def use(self, numbers: NDArray[Any]) -> None:
        """Count that integers were coded by these rows."""
        self._times += np.bincount(numbers, minlength=len(self._times))

    def expected(self) -> Integers:
        """How often each integer was expected where the rows were used, in 2**-8."""
        return (self._times.astype(np.float64) @ self._rows.astype(np.float64)).astype(np.int64) >> 16
