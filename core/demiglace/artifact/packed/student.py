"""How likely integers are around a predicted value: Student's t distribution over intervals of length 1.

With 16 degrees of freedom: the variance is itself only known so well. Its distribution function is algebraic
for an even number, so that every machine computes the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FREEDOM = 16
_WIDER = 1.0690449676496976  # the root of 16 / 14: the distribution's own standard deviation
_ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
LEVELS = 41
"""Levels of the standard deviation, which is 2**(level / 4 - 3): 1/8 to 128."""
THRESHOLDS = np.array(
    [(16384, 19484, 23170, 27554)[odd % 4] << odd // 4 + 4 for odd in range(1, 2 * LEVELS - 1, 2)],
    dtype=np.int64,
)
"""From which variance on, in 2**-24, the next level holds: 2**(level / 2 - 6 + 1 / 4)."""
_STEPS = np.clip((23 - np.arange(LEVELS)) // 4, -3, 3)
MOST_CENTRE = 128 << 3
"""Centres are from `-MOST_CENTRE` to that."""
_MASS = 1 << 30


def deviation(level: int) -> float:
    """The standard deviation of a level."""
    return _ROOTS[level % 4] * 2.0 ** (level // 4 - 3)


def centres(values: NDArray[np.int64], levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values in 2**-6 as multiples of a power of 2 that is at most a quarter of the deviation, rounded."""
    shift = 6 - _STEPS[levels]
    return values + (1 << shift - 1) >> shift


@lru_cache(maxsize=1 << 13)
def masses(level: int, centre: int, low: int, high: int) -> NDArray[np.int64]:
    """The probability of each integer from `low` to `high`, in 2**-30.

    Args:
        level: of the standard deviation.
        centre: of the distribution, as `centres` gives it.
        low: at least -128.
        high: at most 127.
    """
    middle = centre * 2.0 ** -int(_STEPS[level])
    edges = (np.arange(low, high + 2) - (middle + 0.5)) / deviation(level) * _WIDER
    sine = edges / np.sqrt(edges * edges + _FREEDOM)
    rest, term, total = 1 - sine * sine, np.ones_like(sine), np.ones_like(sine)
    for half in range(1, _FREEDOM // 2):
        term = term * rest * ((2 * half - 1) / (2 * half))
        total = total + term
    below = sine * total * (_MASS / 2)
    return np.maximum(0, np.floor(below[1:] - below[:-1])).astype(np.int64)
