"""Which weights can be solved for from what their layers see, and in what order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from demiglace.calibration.order import execution_order
from demiglace.calibration.rows import computes_otherwise, has_input_rows
from demiglace.data import Batch
from demiglace.graph import ModelGraph, Weight
from demiglace.passes import Context

if TYPE_CHECKING:
    from torch import nn

MAX_INPUTS = 1 << 14
"""Weights of an output whose statistics still fit: their matrix has 2 GiB, and solving needs a few."""


def solvable_stages(
    model: ModelGraph, weights: Iterable[Weight], batch: Batch, context: Context
) -> list[list[Weight]]:
    """The weights of linear layers and convolutions that a forward pass calls, in the order of the calls.

    Layers that get the very same input share a list. What cannot be solved for is left alone, with the
    reason.
    """
    holders = _holders(model.module)
    found: dict[str, Weight] = {}
    for weight in weights:
        reason = _obstacle(model.module, weight, holders)
        if reason:
            context.leave_alone(weight.name, reason)
        else:
            found[_path(weight)] = weight
    order = execution_order(model, batch, found)
    called = {path for stage in order for path in stage}
    for path in found.keys() - called:
        context.leave_alone(found[path].name, "the model never calls its layer as a module")
    return [[found[path] for path in stage] for stage in order]


def _path(weight: Weight) -> str:
    return "" if weight.module == "." else weight.module


def _obstacle(module: nn.Module, weight: Weight, holders: dict[int, int]) -> str:
    """Why a weight cannot be solved for; empty when it can."""
    layer = module.get_submodule(_path(weight))
    if not has_input_rows(layer) or layer._parameters.get("weight") is None:
        return f"no least squares is known for the weight of a {weight.type}"
    if computes_otherwise(layer):
        return f"{weight.type} computes in its own way: what its weight multiplies is not known"
    if holders[id(layer.weight)] > 1:
        return "several layers share it"
    inputs = weight.tensor[0].numel()
    if inputs > MAX_INPUTS:
        return f"each of its outputs has {inputs} weights; least squares takes at most {MAX_INPUTS}"
    return ""


def _holders(module: nn.Module) -> dict[int, int]:
    """How many modules hold each parameter."""
    count: dict[int, int] = {}
    for each in module.modules():
        for parameter in each._parameters.values():
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    return count
