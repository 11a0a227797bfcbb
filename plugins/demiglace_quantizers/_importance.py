"""What a squared error in each row of a weight costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from demiglace.calibration import (
    CalibrationBatches,
    InputGram,
    calibrate,
    execution_order,
    row_sensitivities,
)
from demiglace.graph import ModelGraph
from demiglace.passes import Context
from demiglace.quantization import Layer
from demiglace_quantizers._budget import Place, place_of
from demiglace_quantizers._by_inputs import has_own_rows, moments_of
from demiglace_quantizers._gptq import column_costs

_TINY = 1e-100  # the power of a row of zeros
_ELEMENTS = 1 << 26  # of second moments at a time


def by_size(weight: Tensor) -> Tensor:
    """Without data, `[rows]`: errors cost by how large they are in their row and in the whole weight."""
    power = weight.detach().flatten(1).double().square().mean(1)
    return (power.clamp_min(_TINY) * power.mean().clamp_min(_TINY)).rsqrt()


def by_outputs(
    model: ModelGraph, layers: Sequence[Layer], batches: CalibrationBatches, context: Context
) -> dict[Place, Tensor]:
    """By the weight's place, what its errors do to the model's outputs, `[rows]`.

    A weight that the outputs do not depend on gets as many bits as the others do on average.
    """
    weights = {layer.qualified(own): weight for layer in layers for own, weight in layer.weights.items()}
    unique = dict({id(weight): (name, weight) for name, weight in weights.items()}.values())
    found = row_sensitivities(model, unique, batches, context)
    relative = [(found[name] / by_size(unique[name]).cpu()).log().mean() for name in found]
    usual = torch.stack(relative).mean().exp() if relative else torch.ones((), dtype=torch.float64)
    return {
        place_of(weight): found.get(name, by_size(weight).cpu() * usual) for name, weight in unique.items()
    }


def column_costs_of(
    model: ModelGraph,
    layers: Sequence[Layer],
    batches: CalibrationBatches,
    damping: float,
    context: Context,
) -> dict[Place, Tensor]:
    """By the weight's place, `column_costs` as a share of the mean square of its inputs, `[groups, k]`."""
    solvable = {layer.name: layer for layer in layers if has_own_rows(layer, layers)}
    found: dict[Place, Tensor] = {}
    for stage in _bounded(execution_order(model, batches.first(), solvable), solvable):
        grams = {names[0]: InputGram(torch.float32) for names in stage}
        calibrate(model, batches, grams, context, stop_early=True)
        seen: dict[int, Tensor] = {}
        for name, moments in moments_of(stage, grams):
            (weight,) = solvable[name].weights.values()
            if id(moments) not in seen:
                seen = {id(moments): _shares(moments, damping)}
            found[place_of(weight)] = seen[id(moments)]
    return found


def _bounded(stages: list[list[str]], layers: Mapping[str, Layer]) -> Iterator[list[list[str]]]:
    """Stages together as long as their second moments fit into memory."""
    taken: list[list[str]] = []
    size = 0
    for names in stages:
        (weight,) = layers[names[0]].weights.values()
        own = weight[0].numel() ** 2
        if taken and size + own > _ELEMENTS:
            yield taken
            taken, size = [], 0
        taken.append(names)
        size += own
    if taken:
        yield taken


def _shares(moments: Tensor, damping: float) -> Tensor:
    mean = moments.diagonal(dim1=1, dim2=2).mean()
    return column_costs(moments, damping) / torch.where(mean > 0, mean, 1.0)
