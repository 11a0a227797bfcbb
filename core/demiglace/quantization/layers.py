"""The layers of a model whose weights can become integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demiglace.graph import ModelGraph
from demiglace.quantization.swap import quantizable_weights, refusal
from demiglace.recipe.selectors import ROOT, selected

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer to quantize."""

    #: Qualified name; `.` for the root.
    name: str
    module: nn.Module
    #: Its weights by their own names.
    weights: dict[str, Tensor]

    def qualified(self, weight: str) -> str:
        """A weight's name in the model."""
        return weight if self.name == ROOT else f"{self.name}.{weight}"


@dataclass
class Selection:
    """What selectors take."""

    layers: list[Layer] = field(default_factory=list)
    #: Layers with weights that cannot be quantized, and why.
    refused: dict[str, str] = field(default_factory=dict)


def select_layers(
    model: ModelGraph, targets: Sequence[str] = ("*",), ignore: Sequence[str] = ()
) -> Selection:
    """The layers with weights of at least two dimensions that the selectors take, embeddings too.

    A selector takes a layer by its name or by that of its weight. A weight that several layers share
    becomes integers only if all of them can.
    """
    candidates = model.candidates()
    chosen = {one.name for one in selected(candidates, targets)}
    left = {one.name for one in selected(candidates, ignore)} if ignore else set()
    found = Selection()
    for name, module in model.module.named_modules():
        if (held := _held(module)) and (name or ROOT) in chosen - left:
            found.refused[name or ROOT] = held
        layer = _layer(name or ROOT, module, chosen, left)
        if layer is None:
            continue
        if reason := refusal(module):
            found.refused[layer.name] = reason
        else:
            found.layers.append(layer)
    _keep_shared_together(model, found)
    return found


def _held(module: nn.Module) -> str:
    """Why a layer whose weight is no parameter any more cannot be quantized; empty for others."""
    if hasattr(module, "quantized_weights"):
        return "it is quantized already"
    return "it holds only the weights that are not zero" if hasattr(module, "sparse_weights") else ""


def _layer(name: str, module: nn.Module, chosen: set[str], left: set[str]) -> Layer | None:
    """A module with the selected ones of its own weights; `None` without any."""
    if name in left:
        return None
    every = {own: one for own, one in module._parameters.items() if one is not None and _is_weight(own, one)}
    known = quantizable_weights(module) or tuple(every)
    layer = Layer(name, module, {own: one for own, one in every.items() if own in known})
    taken = {
        own: one
        for own, one in layer.weights.items()
        if layer.qualified(own) not in left and (name in chosen or layer.qualified(own) in chosen)
    }
    return Layer(name, module, taken) if taken else None


def _is_weight(name: str, parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and parameter.is_floating_point() and "bias" not in name


def _keep_shared_together(model: ModelGraph, found: Selection) -> None:
    """Leave alone what shares a weight with a place that stays floating point."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.module.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    taken = {layer.qualified(own) for layer in found.layers for own in layer.weights}
    for layer in list(found.layers):
        for weight in layer.weights.values():
            other = next(
                (name for name in places[id(weight)] if name not in taken and _alias(model, name)), None
            )
            if other is not None:
                found.refused[layer.name] = f"it shares its weight with {other!r}, which is not quantized"
                found.layers.remove(layer)
                break


def _alias(model: ModelGraph, name: str) -> bool:
    """Whether a name belongs to a module of its own, not to a second path to the same module."""
    paths = {path for path, _ in model.module.named_modules()}
    return name.rpartition(".")[0] in paths
