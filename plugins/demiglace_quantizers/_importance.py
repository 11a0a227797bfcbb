"""What a squared error in each row of a weight costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from demiglace.calibration import (
    CalibrationBatches,
    execution_order,
    row_sensitivities,
)
from demiglace.graph import ModelGraph
from demiglace.passes import Context
from demiglace.quantization import Layer
from demiglace_quantizers._budget import Place, Rows, geometric_mean, place_of
from demiglace_quantizers._by_inputs import has_own_rows
from demiglace_quantizers._columns import Columns
from demiglace_quantizers._moments import input_moments

_TINY = 1e-100  # the power of a row of zeros
_LEAST = 1 / 16  # of what errors cost on average for a row's size
_ELEMENTS = 1 << 26  # of second moments at a time


def by_size(weight: Tensor) -> Tensor:
    """Without data, `[rows]`: errors cost by how large they are in their row and in the whole weight."""
    power = weight.detach().flatten(1).double().square().mean(1)
    return (power.clamp_min(_TINY) * power.mean().clamp_min(_TINY)).rsqrt()


def by_outputs(
    model: ModelGraph,
    layers: Sequence[Layer],
    batches: CalibrationBatches,
    damping: float,
    context: Context,
) -> dict[Place, Rows]:
    """All weights, with what their errors do to the model's outputs.

    A weight that the outputs do not depend on costs what others do on average for its size. No row costs less
    than a sixteenth of that: where an attention or a ReLU is saturated, small errors do nothing and large
    ones do much.
    """
    named = {layer.qualified(own): weight for layer in layers for own, weight in layer.weights.items()}
    weights = dict({place_of(weight): (name, weight) for name, weight in named.items()}.values())
    columns = _columns(model, layers, batches, damping, context)
    found = row_sensitivities(model, weights, batches, context)
    for name in found:
        place = place_of(weights[name])
        found[name] *= geometric_mean(columns[place]) if place in columns else 1.0
    sizes = {name: by_size(weight).cpu() for name, weight in weights.items()}
    ratios = [float((one / sizes[name]).mean()) for name, one in found.items()]
    usual = statistics.geometric_mean(ratios or [1.0])
    rows = {}
    for name, weight in weights.items():
        size, place = usual * sizes[name], place_of(weight)
        importance = torch.maximum(found.get(name, size), _LEAST * size)
        rows[place] = Rows(weight, importance, columns.get(place))
    return rows


def _columns(
    model: ModelGraph,
    layers: Sequence[Layer],
    batches: CalibrationBatches,
    damping: float,
    context: Context,
) -> dict[Place, Tensor]:
    """By the weight's place, `Columns.costs` as a share of the mean square of its inputs, `[groups, k]`."""
    solvable = {layer.name: layer for layer in layers if has_own_rows(layer, layers)}
    found: dict[Place, Tensor] = {}
    for stage in _bounded(execution_order(model, batches.first(), solvable), solvable):
        shares: dict[str, Tensor] = {}
        first = {name: names[0] for names in stage for name in names}
        for name, inputs in input_moments(model, stage, batches, context):
            if first[name] not in shares:
                shares[first[name]] = _shares(inputs.matrix, damping)
            (weight,) = solvable[name].weights.values()
            found[place_of(weight)] = shares[first[name]]
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
    return Columns.of(moments, damping).costs / torch.where(mean > 0, mean, 1.0)
