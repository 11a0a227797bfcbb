"""Steps for every row, such that all rows pay the same error for a bit and all bits together fit a budget.

A row whose squared errors cost `h` gets the step `sqrt(level / h)`: to halve it takes a bit more for each
weight and saves three quarters of `h * step^2 / 12`, the same everywhere. This is reverse water-filling
(Cover & Thomas, theorem 10.3.3) for uniform steps; the level is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from demiglace_quantizers._lagrangian import HIGH, counts_of, entropy, settled

_GRID = 8  # step sizes in an octave: neighbours differ by 9 %, which costs next to nothing and codes well
_SAMPLE = 1 << 16  # weights of a tensor that the search looks at
_HALVINGS = 30  # of the logarithm of the level, from 2^100 to 2^-100
_CORRECTION = 0.5  # bits a weight, at most, that a weight makes up for what those before it took too much
_FAR = 4.0  # a step of so many times its row's largest weight makes it zero

_FINE = (2.0**-13, 2.0**12)  # steps that 16 bits tell well

Place: TypeAlias = tuple[int, tuple[int, ...]]
"""Where a weight is in memory, and its shape."""


def place_of(weight: Tensor) -> Place:
    """Equal for a weight and its detached self."""
    return weight.data_ptr(), tuple(weight.shape)


class Rows:
    """A weight to round.

    Args:
        weight: floating point, `[rows, ...]`.
        importance: what a squared error of a weight costs, by row, `[rows]`, positive.
    """

    def __init__(self, weight: Tensor, importance: Tensor) -> None:
        self.matrix = weight.detach().flatten(1).float()
        self.importance = importance.to(self.matrix.device).view(-1, 1)
        self._largest = self.matrix.abs().amax(1, keepdim=True)

    def steps(self, level: float) -> Tensor:
        """The step of each row at a level, float32 `[rows, 1]`; large enough for integers up to 127."""
        wanted = (level / self.importance).sqrt().float()
        wanted = _on_grid(torch.minimum(wanted, _FAR * self._largest).clamp_min(2.0**-100), torch.round)
        least = _on_grid((self._largest / HIGH).clamp_min(2.0**-100), torch.ceil)
        steps = torch.where(self._largest > 0, torch.maximum(wanted, least), 1.0)
        fine = bool(((steps > _FINE[0]) & (steps < _FINE[1])).all())
        return steps.half().float() if fine else steps

    def bits(self, level: float) -> float:
        """About what the weight takes at a level once it is coded, scales included."""
        steps = self.steps(level)
        places, values = self._sample
        integers, _ = settled(values / steps.flatten()[places // self.matrix.shape[1]])
        scales = steps.unique(return_counts=True)[1]
        share = self.matrix.numel() / max(1, len(places))
        return entropy(counts_of(integers)) * share + entropy(scales) + 16 * len(scales)

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor]:
        """Places and values of weights in a stride that meets all columns."""
        count, columns = self.matrix.numel(), self.matrix.shape[1]
        stride = max(1, count // _SAMPLE)
        while math.gcd(stride, columns) > 1:
            stride += 1
        places = torch.arange(0, count, stride, device=self.matrix.device)
        return places, self.matrix.flatten()[places]


def _on_grid(steps: Tensor, to_integer: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.exp2(to_integer(steps.log2() * _GRID) / _GRID)


class Budget:
    """The bits of all weights; each is handed its steps when its turn comes.

    What a weight took more or less than planned is given to those that come after it.

    Args:
        weights: by any key.
        bits: that all of them may take together.
    """

    def __init__(self, weights: Mapping[Place, Rows], bits: float) -> None:
        self._weights = weights
        self.level = _level(weights, bits)
        self._planned = {key: rows.bits(self.level) for key, rows in weights.items()}
        self._over = 0.0
        self._left = sum(rows.matrix.numel() for rows in weights.values())

    def steps(self, key: Place) -> Tensor:
        """The steps of a weight."""
        correction = max(-_CORRECTION, min(_CORRECTION, self._over / max(1, self._left)))
        return self._weights[key].steps(self.level * 4.0**correction)

    def take(self, key: Place, bits: float) -> None:
        """Tell what a weight took."""
        self._over += bits - self._planned[key]
        self._left -= self._weights[key].matrix.numel()


def _level(weights: Mapping[Place, Rows], bits: float) -> float:
    low, high = -100.0, 100.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(rows.bits(2.0**middle) for rows in weights.values()) > bits:
            low = middle
        else:
            high = middle
    return float(2.0**high)
