"""The edit that puts integers in place of a layer's weight."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from demiglace.graph.edits import Swap
from demiglace.graph.model_graph import types_of
from demiglace.graph.plain.module import Layer
from demiglace.quantization.modules.clustered import CENTROIDS
from demiglace.quantization.modules.fake import LOG_STEP, STEP
from demiglace.quantization.modules.holder import weight_options, weight_tensors
from demiglace.quantization.modules.trained import TrainedWeights
from demiglace.quantization.stored import StoredWeight
from demiglace.recipe.selectors import ROOT

_TYPES: dict[type[nn.Module], str] = {
    nn.Linear: "quantized.linear",
    nn.Conv1d: "quantized.conv1d",
    nn.Conv2d: "quantized.conv2d",
    nn.Conv3d: "quantized.conv3d",
    nn.ConvTranspose1d: "quantized.conv_transpose1d",
    nn.ConvTranspose2d: "quantized.conv_transpose2d",
    nn.ConvTranspose3d: "quantized.conv_transpose3d",
    nn.Embedding: "quantized.embedding",
    nn.MultiheadAttention: "quantized.attention",
}
"""Which type takes the place of which class, or of a subclass with the same forward."""

_IN_GRAPH = "quantized.layer"
"""What takes the place of such a layer where a plain-data graph reads its weight and does not call it."""

_OWN_FORWARD = "quantized.own_forward"
"""What takes the place of such a layer whose class has a forward of its own."""

_COMPUTED = "its weight is computed from other parameters: make it a parameter first"
"""Of spectral norms, weight norms and parametrizations."""

_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def quantizable_weights(module: nn.Module) -> tuple[str, ...]:
    """The weights of a layer that can become integers, by their own names; none for other modules."""
    names = _names(_base(module))
    return tuple(
        name for name in names if refusal(module) is None and module._parameters.get(name) is not None
    )


def refusal(module: nn.Module) -> str | None:
    """Why a module that holds weights cannot hold them as integers; `None` when it can."""
    if hasattr(module, "quantized_weights"):
        return "it is quantized already"
    if isinstance(module, TrainedWeights):
        return "it is being trained for integers already"
    base = _base(module)
    if isinstance(module, ParametrizationList) or (base and _computed(module, base)):
        return _COMPUTED
    if base is None:
        return f"there is no integer form of {types_of(module)[0]}"
    if any(one.numel() == 0 for one in module.parameters(recurse=False)):
        return "it has no weights: a dimension is 0"
    if isinstance(module, Layer):
        return None
    if "forward" in vars(module):
        return "its forward was replaced in this object"
    if has_own_forward(module) and _looks_behind_names(type(module), base):
        return f"{type(module).__name__} has a forward of its own, which may not read its weight by its name"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "its table is renormalised in place (max_norm)"
    return None


def _looks_behind_names(own: type[nn.Module], base: type[nn.Module]) -> bool:
    """Whether the classes from a layer's up to torch's read `_parameters`, in which integers are not."""
    between = own.__mro__[: own.__mro__.index(base)]
    code = [one.__code__ for each in between for one in vars(each).values() if isinstance(one, FunctionType)]
    return any("_parameters" in one.co_names for one in code)


def has_own_forward(module: nn.Module) -> bool:
    """Whether a layer's class is derived from one of torch's that can be integers, and computes by itself.

    What it does with its weight is not known then: it may pad its inputs or normalize the weight first.
    """
    base, own = _base(module), type(module)
    if isinstance(module, TrainedWeights):
        own = own.__bases__[1]
    return base is not None and not isinstance(module, Layer) and own.forward is not base.forward


def _names(base: type[nn.Module] | None) -> tuple[str, ...]:
    return _ATTENTION if base is nn.MultiheadAttention else ("weight",)


def _computed(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether none of the weights that a layer of this class has is a parameter of it."""
    return not isinstance(module, Layer) and not set(_names(base)) & module._parameters.keys()


def _base(module: nn.Module) -> type[nn.Module] | None:
    """The class that a module's, or that of the layer that it stands for in a graph, is or derives from."""
    known = {base.__name__: base for base in _TYPES}
    if isinstance(module, Layer):
        return next((known[name] for name in module.original_types if name in known), None)
    return next((base for base in type(module).__mro__ if base in _TYPES), None)


def weight_only_swap(
    name: str,
    module: nn.Module,
    weights: Mapping[str, StoredWeight],
    *,
    tensors: Mapping[str, Tensor] | None = None,
) -> Swap:
    """The edit that replaces a layer by one with these integer weights and floating-point arithmetic.

    Args:
        name: of the layer.
        module: the layer; it has no `refusal`.
        weights: by their own names in the layer.
        tensors: new values of its other tensors, by their own names.
    """
    base = _base(module)
    if base is None:
        raise ValueError(f"layer {name!r} cannot hold integers")
    kind = _IN_GRAPH if isinstance(module, Layer) else _TYPES[base]
    kind = _OWN_FORWARD if has_own_forward(module) else kind
    return quantized_swap(name, module, kind, weights, tensors=tensors)


def quantized_swap(
    name: str,
    module: nn.Module,
    kind: str,
    weights: Mapping[str, StoredWeight],
    *,
    options: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Swap:
    """The edit that replaces a layer by a registered type with these integer weights.

    Args:
        name: of the layer.
        module: the layer.
        kind: the registered type.
        weights: by their own names in the layer.
        options: further options of the type.
        tensors: further tensors of the new layer.
    """
    dtypes = {own: one.dtype for own, one in module._parameters.items() if one is not None}
    held = {own: weight_options(weight, dtypes[own]) for own, weight in weights.items()}
    given: dict[str, Tensor] = {}
    for own, weight in weights.items():
        given |= weight_tensors(own, weight)
    return Swap(name, kind, {"weights": held, **(options or {})}, {**given, **(tensors or {})})


def fake_swap(name: str, steps: Mapping[str, Tensor], bits: int, *, inputs: bool) -> Swap:
    """The edit that has a layer train its weights as integers.

    Args:
        name: of the layer, which has no `refusal`.
        steps: by weight, the first step sizes, `[rows]`, positive.
        bits: of the weights.
        inputs: whether its inputs are rounded to 8 bits too.
    """
    tensors = {own + STEP: step for own, step in steps.items()}
    tensors |= {own + LOG_STEP: torch.zeros_like(step) for own, step in steps.items()}
    return Swap(name, "fake_quantized", {"weights": dict.fromkeys(steps, bits), "inputs": inputs}, tensors)


def own_swaps(module: nn.Module) -> list[Swap]:
    """The edits that give back every layer that is in training, with its weights as they are now."""
    layers = [name for name, each in module.named_modules() if isinstance(each, TrainedWeights)]
    return [Swap(name or ROOT, "own_weights") for name in layers]


def clustered_swap(name: str, clusters: Mapping[str, int]) -> Swap:
    """The edit that has a layer train weights that share their values.

    Args:
        name: of the layer, which has no `refusal`.
        clusters: by weight, how many values beside 0.
    """
    tensors = {own + CENTROIDS: torch.zeros(count) for own, count in clusters.items()}
    return Swap(name, "clustered", {"clusters": dict(clusters)}, tensors)
