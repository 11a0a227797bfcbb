"""The order in which a model runs its layers."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn

from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import holds_nothing, layer_named, run_batch
from demiglace.data import Batch
from demiglace.graph import ModelGraph


def execution_order(model: ModelGraph, batch: Batch, names: Collection[str]) -> list[list[str]]:
    """The layers among `names` that a forward pass calls, in the order of their first calls.

    Layers that follow each other with the very same input tensor share a list: their input statistics
    are one, and none of them changes what another sees.

    Args:
        model: the model.
        batch: what to run.
        names: qualified names of layers, `.` for the root; those that are never called, or on nothing, are
            left out.
    """
    order: list[list[str]] = []
    seen: set[str] = set()
    last: list[Tensor] = []

    def hook(name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        value = args[0] if args else None
        if name in seen or holds_nothing(value):
            return
        seen.add(name)
        if last and value is last[0]:
            order[-1].append(name)
        else:
            order.append([name])
        last[:] = [value] if isinstance(value, Tensor) else []

    handles = [
        layer_named(model.module, name).register_forward_pre_hook(partial(hook, name)) for name in names
    ]
    try:
        with undisturbed(model.module):
            run_batch(model.module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return order
