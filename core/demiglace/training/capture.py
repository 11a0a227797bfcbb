"""Outputs of inner layers, kept as the model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from demiglace.errors import UsageError
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.selectors import ROOT
from demiglace.training.outputs import prediction

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def capture(module: nn.Module, layer: str) -> tuple[RemovableHandle, Callable[[], Tensor]]:
    """Keep the latest output of a layer; a handle that ends it, and a function that gives the output.

    Raises:
        UsageError: when there is no such layer; names the nearest.
    """
    layers = {name or ROOT: one for name, one in module.named_modules()}
    if layer not in layers:
        raise UsageError(f"the model has no layer {layer!r}", hint=did_you_mean(layer, layers, "its layers"))
    kept: list[Any] = []

    def keep(_module: nn.Module, _inputs: object, outputs: object) -> None:
        kept[:] = [outputs]

    def latest() -> Tensor:
        if not kept:
            raise UsageError(f"layer {layer!r} did not run", hint="name a layer that every forward pass uses")
        return prediction(kept[0])

    return layers[layer].register_forward_hook(keep), latest
