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

from demiglace.artifact.packed import coded_bytes
from demiglace.quantization import QTensor, Scheme
from demiglace_quantizers._lagrangian import HIGH, counts_of, entropy, rounded

_SCHEME = Scheme(8)
_GRID = 8  # step sizes in an octave: neighbours differ by 9 %, which costs next to nothing and codes well
_SAMPLE = 1 << 16  # weights of a tensor that the search looks at
_HALVINGS = 16  # of the range of levels
_CORRECTION = 0.5  # bits a weight, at most, that a weight makes up for what those before it took too much
_ATTEMPTS = 4  # at rounding a weight into its bits
_NEAR = 0.005  # of its bits, which ends them
_FLAT = 0.1  # bits a weight for an octave of the level, where bits are few
_FAR = 4.0  # a step of so many times its row's largest weight makes it zero
_TINY = torch.finfo(torch.float64).tiny
_FINE = (2.0**-13, 2.0**12)  # steps that 16 bits tell well

Place: TypeAlias = tuple[int, tuple[int, ...]]
"""Where a weight is in memory, and its shape."""


def place_of(weight: Tensor) -> Place:
    """Equal for a weight and its detached self."""
    return weight.data_ptr(), tuple(weight.shape)


def geometric_mean(costs: Tensor) -> float:
    """Of positive numbers."""
    return float(costs.double().log().mean().exp())


class Rows:
    """A weight to round.

    Args:
        weight: floating point, `[rows, ...]`.
        importance: what a squared error costs in a usual column, by row, `[rows]`, positive.
        columns: what one costs by group of rows and column, `[groups, k]`, their geometric mean being the
            usual one; by default all cost the same.
    """

    def __init__(self, weight: Tensor, importance: Tensor, columns: Tensor | None = None) -> None:
        self._shape = tuple(weight.shape)
        self.matrix = weight.detach().flatten(1).float()
        columns = self.matrix.new_ones(1, 1) if columns is None else columns
        self.usual = geometric_mean(columns)
        height = len(self.matrix) // len(columns)
        costs = (columns / self.usual).unsqueeze(1).expand(-1, height, self.matrix.shape[1])
        self._costs = costs[0] if len(columns) == 1 else costs.flatten(0, 1)
        self._importance = importance.to(self.matrix.device).view(-1, 1)
        self._largest = self.matrix.abs().amax(1, keepdim=True)

    def steps(self, level: float) -> Tensor:
        """The step of each row at a level, float32 `[rows, 1]`; large enough for integers up to 127."""
        wanted = (level / self._importance).sqrt().float()
        wanted = _on_grid(torch.minimum(wanted, _FAR * self._largest), torch.round)
        least = _on_grid(self._largest / HIGH, torch.ceil)
        steps = torch.where(self._largest > 0, torch.maximum(wanted, least), 1.0)
        fine = bool(((steps > _FINE[0]) & (steps < _FINE[1])).all())
        return steps.half().float() if fine else steps

    def levels(self) -> tuple[float, float]:
        """The levels from which on no step can become smaller, and none larger."""
        ends = self._importance * self._largest.double().square().clamp_min(_TINY)
        return float(ends.min()) / HIGH**2, float(ends.max()) * _FAR**2

    def integers(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """As `rounded` gives them."""
        return rounded(self.matrix, steps, self._costs)

    def packed(self, integers: Tensor, steps: Tensor) -> QTensor:
        """The weight as integers `[rows, k]` and their steps, in 16 bits where these lose nothing by it."""
        scales = torch.float16 if torch.equal(steps.half().float(), steps) else torch.float32
        scale, zero = steps.unsqueeze(1), torch.zeros_like(steps).unsqueeze(1)
        return QTensor.of(integers.unsqueeze(1), scale, zero, _SCHEME, self._shape, scales=scales)

    def bits(self, level: float) -> float:
        """About what the weight takes at a level once it is coded, scales included."""
        steps = self.steps(level)
        rows, columns = self._sample
        integers, _ = rounded(self.matrix[rows, columns], steps[rows, 0], self._costs[rows, columns])
        scales = steps.unique(return_counts=True)[1]
        share = self.matrix.numel() / len(rows)
        return entropy(counts_of(integers)) * share + entropy(scales) + 16 * len(scales)

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of weights in a stride that meets all columns."""
        count, width = self.matrix.numel(), self.matrix.shape[1]
        stride = max(1, count // _SAMPLE)
        while math.gcd(stride, width) > 1:
            stride += 1
        places = torch.arange(0, count, stride, device=self.matrix.device)
        return places // width, places % width


def _on_grid(steps: Tensor, to_integer: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.exp2(to_integer(steps.log2() * _GRID) / _GRID)


class Budget:
    """The bits of all weights. What a weight took more or less than planned is left for those after it.

    Args:
        weights: what to round, in any order.
        bits: that all of them may take together.
    """

    def __init__(self, weights: Mapping[Place, Rows], bits: float) -> None:
        self._weights = weights
        first = _level(weights, bits)
        # What real files take beyond the estimate, of small weights above all, changes little with the level.
        more = {place: _coded_bits(rows, first) - rows.bits(first) for place, rows in weights.items()}
        self._level = _level(weights, bits - sum(more.values()))
        self._planned = {place: rows.bits(self._level) + more[place] for place, rows in weights.items()}
        self._over = 0.0
        self._left = sum(rows.matrix.numel() for rows in weights.values())

    def fitted(self, place: Place, attempt: Callable[[Rows, Tensor], QTensor]) -> QTensor:
        """A weight rounded by `attempt` with steps with which it takes what it may.

        Args:
            place: of the weight; each comes once.
            attempt: rounds rows to steps. What that takes is known only then.
        """
        rows = self._weights[place]
        count = rows.matrix.numel()
        correction = max(-_CORRECTION, min(_CORRECTION, self._over / max(1, self._left)))
        allowed = self._planned[place] - correction * count
        weight = _attempted(rows, self._level, allowed, attempt)
        self._over += 8 * coded_bytes(weight) - self._planned[place]
        self._left -= count
        return weight


def _attempted(
    rows: Rows, level: float, allowed: float, attempt: Callable[[Rows, Tensor], QTensor]
) -> QTensor:
    """The attempt that comes nearest to the bits allowed; the secant method on the level's logarithm."""
    count = rows.matrix.numel()
    tried: list[tuple[float, float, QTensor]] = []
    slope, octaves = -0.5, 0.0  # bits a weight for an octave of the level, where bits are many
    for _ in range(_ATTEMPTS):
        weight = attempt(rows, rows.steps(level * 2.0**octaves))
        excess = (8 * coded_bytes(weight) - allowed) / count
        if tried and octaves != tried[-1][1]:
            slope = min(-_FLAT, (excess - tried[-1][0]) / (octaves - tried[-1][1]))
        tried.append((excess, octaves, weight))
        if abs(excess) <= _NEAR * allowed / count:
            break
        octaves -= excess / slope
    return min(tried, key=lambda one: abs(one[0]))[2]


def _coded_bits(rows: Rows, level: float) -> int:
    steps = rows.steps(level)
    return 8 * coded_bytes(rows.packed(rows.integers(steps)[0], steps))


def _level(weights: Mapping[Place, Rows], bits: float) -> float:
    ends = [rows.levels() for rows in weights.values()]
    low, high = (math.log2(pick(one)) for pick, one in zip((min, max), zip(*ends, strict=True), strict=True))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(rows.bits(2.0**middle) for rows in weights.values()) > bits:
            low = middle
        else:
            high = middle
    return float(2.0**high)
