"""Outputs of inner layers, kept as the model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demiglace.errors import UsageError
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.selectors import ROOT
from demiglace.training.outputs import prediction

if TYPE_CHECKING:
    from torch import Tensor, nn


class Capture:
    """The latest output of a layer; call it to have it.

    Args:
        module: the model.
        layer: the layer's qualified name, `.` for the model itself.

    Raises:
        UsageError: when there is no such layer; names the nearest.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        layers = {name or ROOT: one for name, one in module.named_modules()}
        if layer not in layers:
            raise UsageError(
                f"the model has no layer {layer!r}", hint=did_you_mean(layer, layers, "its layers")
            )
        self.layer = layer
        self._latest: Any = None

        def keep(ran: nn.Module, _inputs: object, outputs: object) -> None:
            # A deep copy of the model has the hook too, and must not speak for the model.
            if ran is layers[layer]:
                self._latest = outputs

        self._handle = layers[layer].register_forward_hook(keep)

    def __call__(self) -> Tensor:
        if self._latest is None:
            raise UsageError(
                f"layer {self.layer!r} did not run", hint="name a layer that every forward pass uses"
            )
        return prediction(self._latest)

    def clear(self) -> None:
        """Let the output go, and with it the graph of its gradients."""
        self._latest = None

    def remove(self) -> None:
        """Stop capturing."""
        self._handle.remove()
