"""The calibration run of criteria that look at data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demiglace.calibration import (
    Inputs,
    Moments,
    Several,
    Statistics,
    ZeroShare,
    calibrate,
    differentiable,
    layer_of_weight,
    undisturbed,
)
from demiglace.errors import UsageError
from demiglace.graph import Group, ModelGraph
from demiglace.passes import Context
from demiglace.training import is_classes, named_loss, prediction

if TYPE_CHECKING:
    from demiglace.calibration import CalibrationBatches
    from demiglace.data import Batch

_MULTIPLYING = {"Linear", "_ConvNd"}
"""Layers that multiply their input, whose channels are where collectors look for them."""


def gathered(
    gathers: str, model: ModelGraph, groups: Sequence[Group], batches: CalibrationBatches, context: Context
) -> Statistics:
    """All that a criterion needs to score these groups.

    Args:
        gathers: as `CriterionSpec.gathers`, `inputs` or `changes`.
        model: the model.
        groups: of the model.
        batches: what to run.
        context: shows progress and honours interrupts.

    Raises:
        UsageError, GraphError: when the data does not serve; see `calibrate`.
    """
    model = model.with_layers()
    known = Statistics.of(model, context.rng())
    if gathers == "inputs":
        return replace(known, inputs=_inputs(known, model, groups, batches, context))
    return replace(known, changes=_changes(model, groups, batches, context))


def _inputs(
    known: Statistics,
    model: ModelGraph,
    groups: Sequence[Group],
    batches: CalibrationBatches,
    context: Context,
) -> dict[str, Inputs]:
    layers = dict.fromkeys(layer_of_weight(one.tensor) for group in groups for one in group.slices)
    watched = {
        layer: (Moments("input"), ZeroShare("input"))
        for layer in layers
        if not _MULTIPLYING.isdisjoint(known.types.get(layer, ()))
    }
    calibrate(model, batches, {layer: Several(*parts) for layer, parts in watched.items()}, context)
    return {
        layer: Inputs(
            *(one.cpu() for one in (moments.mean, moments.variance, moments.mean_square, zeros.share))
        )
        for layer, (moments, zeros) in watched.items()
        if moments.calls
    }


def _changes(
    model: ModelGraph, groups: Sequence[Group], batches: CalibrationBatches, context: Context
) -> dict[tuple[str, int], Tensor]:
    parameters: dict[str, Tensor] = dict(model.module.named_parameters())
    slices = [one for group in groups for one in group.slices if one.tensor in parameters]
    places = dict.fromkeys((one.tensor, one.dim) for one in slices)
    used = {tensor: parameters[tensor] for tensor, _ in places}
    found: dict[tuple[str, int], list[Tensor]] = {place: [] for place in places}
    with undisturbed(model.module, context.device, gradients=True), differentiable(used.values()):
        for batch in context.track(batches, "calibrating"):
            loss = _loss(model.module, batch, context)
            gradients = torch.autograd.grad(loss, used, materialize_grads=True)
            for tensor, dim in places:
                change = (used[tensor].detach() * gradients[tensor]).movedim(dim, 0)
                found[tensor, dim].append(change.reshape(len(change), -1).sum(1).float().cpu())
    return {place: torch.stack(changes) for place, changes in found.items()}


def _loss(module: nn.Module, batch: Batch, context: Context) -> Tensor:
    """The caller's loss, or that of class labels, or the squared error."""
    if context.step is not None:
        return context.step(module, batch)
    if batch.labels is None:
        raise UsageError("the calibration data has no labels", hint="use a criterion that needs none")
    outputs = batch.run(module)
    name = "cross_entropy" if is_classes(prediction(outputs), batch.labels) else "mse_loss"
    return named_loss(name, {})(outputs, batch)
