"""Rounding all weights under one budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demiglace.artifact.packed import coded_bytes
from demiglace.calibration import calibration_batches
from demiglace.quantization import Layer, QTensor, Rounding, RoundingMethod, Scheme, inputs_of
from demiglace_quantizers._budget import Budget, Place, Rows, place_of
from demiglace_quantizers._by_inputs import round_by_inputs
from demiglace_quantizers._gptq import compensated
from demiglace_quantizers._importance import by_outputs, by_size, made_up_for
from demiglace_quantizers._lagrangian import cheapest, rounded
from demiglace_quantizers._nearest import Rounded, round_each

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context
    from demiglace_quantizers.rate import RateConfig

_SCHEME = Scheme(8)


@dataclass(frozen=True)
class _Options:
    """What rounding by inputs takes from the pass's options."""

    samples: int
    batch_size: int
    damping: float
    clip: bool = False


def rounded_within(
    model: ModelGraph, layers: Sequence[Layer], bits: float, config: RateConfig, context: Context
) -> Rounded:
    """Every weight of the layers as integers that take so many bits together; reports what they take."""
    weights = {place_of(weight): weight for layer in layers for weight in layer.weights.values()}
    if config.method == "rtn":
        rows = {key: Rows(weight, by_size(weight)) for key, weight in weights.items()}
        rounding = _Rounding(Budget(rows, bits))
        done = round_each(layers, _SCHEME, context, method=rounding.blind)
    else:
        options = _Options(config.samples, config.batch_size, config.damping)
        batches = calibration_batches(context, config.samples, config.batch_size)
        importance = by_outputs(model, layers, batches, context)
        left = made_up_for(model, layers, batches, config.damping, context)
        rows = {key: Rows(weight, importance[key] * left.get(key, 1.0)) for key, weight in weights.items()}
        rounding = _Rounding(Budget(rows, bits), left)
        method = RoundingMethod(config.method, rounding.by_inputs, inputs=True)
        done = round_by_inputs(model, layers, _SCHEME, method, options, context, blind=rounding.blind)
    taken = 8 * sum(map(coded_bytes, done.weights.values()))
    context.figures["coded_bytes"] = taken // 8
    context.figures["bits_per_weight"] = round(taken / sum(map(torch.numel, weights.values())), 4)
    return done


class _Rounding:
    """Rounds one weight after the other with the steps that the budget hands out.

    Args:
        budget: of all weights.
        left: by weight, the share of an error's cost that is left when later columns make up for it.
    """

    def __init__(self, budget: Budget, left: Mapping[Place, float] | None = None) -> None:
        self._budget, self._left = budget, left or {}

    def blind(self, task: Rounding) -> QTensor:
        """Without looking at inputs."""
        key = place_of(task.weight)
        matrix, steps = task.weight.flatten(1).float(), self._budget.steps(key)
        return self._kept(key, task, rounded(matrix, steps)[0], steps)

    def by_inputs(self, task: Rounding) -> QTensor:
        """Each column makes up for what those before it lost; what was zero stays zero."""
        key = place_of(task.weight)
        matrix, moments, steps = task.weight.flatten(1).float(), inputs_of(task), self._budget.steps(key)
        table = rounded(matrix, steps)[1]
        usual = self._left[key] * moments.diagonal(dim1=1, dim2=2).mean()
        own, keep = (one.unflatten(0, (len(moments), -1)) for one in (steps, matrix != 0))

        def decide(now: Tensor, column: int, cost: Tensor) -> tuple[Tensor, Tensor]:
            chosen = cheapest(now / own[:, :, 0], table, cost / usual) * keep[:, :, column]
            return chosen, chosen * own[:, :, 0]

        return self._kept(key, task, compensated(matrix, moments, task.damping, decide), steps)

    def _kept(self, key: Place, task: Rounding, integers: Tensor, steps: Tensor) -> QTensor:
        short = torch.equal(steps.half().float(), steps)
        weight = QTensor.of(
            integers.unsqueeze(1),
            steps.unsqueeze(1),
            torch.zeros_like(steps).unsqueeze(1),
            _SCHEME,
            tuple(task.weight.shape),
            scales=torch.float16 if short else torch.float32,
        )
        self._budget.take(key, 8 * coded_bytes(weight))
        return weight
