"""What torch's own layers, and classes made from them, keep of their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes after the cut, by the name that the module itself gives a parameter or buffer."""
Sizes: TypeAlias = dict[str, "int | list[int]"]
"""Values of attributes by name."""
_Reader: TypeAlias = Callable[[Any, Shapes, Mapping[str, Any]], Sizes]


def sizes_of(module: nn.Module, shapes: Shapes, literals: Mapping[str, Any]) -> Sizes:
    """The attributes that hold sizes, as they must be after a cut; empty for a module that torch has not.

    Args:
        module: the layer, before the cut.
        shapes: of its own parameters and buffers, after the cut.
        literals: arguments of its operators that the cut changes, such as `groups`.
    """
    return next((read(module, shapes, literals) for kind, read in _READERS if isinstance(module, kind)), {})


def _convolution(module: _ConvNd, shapes: Shapes, literals: Mapping[str, Any]) -> Sizes:
    if "weight" not in shapes:
        return {}
    weight, groups = shapes["weight"], literals.get("groups", module.groups)
    one, other = ("in", "out") if isinstance(module, _ConvTransposeNd) else ("out", "in")
    return {f"{one}_channels": weight[0], f"{other}_channels": weight[1] * groups, "groups": groups}


def _named(tensor: str, *names: str) -> _Reader:
    """The sizes of one tensor, dimension by dimension, under these names."""

    def read(_: nn.Module, shapes: Shapes, __: Mapping[str, Any]) -> Sizes:
        return dict(zip(names, shapes.get(tensor, ()), strict=False))

    return read


def _batch_norm(_: _NormBase, shapes: Shapes, __: Mapping[str, Any]) -> Sizes:
    vector = shapes.get("weight") or shapes.get("running_mean")
    return {"num_features": vector[0]} if vector else {}


def _last_axes(module: nn.LayerNorm | nn.RMSNorm, _: Shapes, literals: Mapping[str, Any]) -> Sizes:
    return {"normalized_shape": literals.get("normalized_shape", list(module.normalized_shape))}


def _group_norm(module: nn.GroupNorm, shapes: Shapes, literals: Mapping[str, Any]) -> Sizes:
    groups = literals.get("num_groups", module.num_groups)
    channels = (
        shapes["weight"][0] if "weight" in shapes else module.num_channels * groups // module.num_groups
    )
    return {"num_channels": channels, "num_groups": groups}


def _unflatten(module: nn.Unflatten, _: Shapes, literals: Mapping[str, Any]) -> Sizes:
    return {"unflattened_size": literals.get("sizes", list(module.unflattened_size))}


def _recurrent(_: nn.RNNBase, shapes: Shapes, __: Mapping[str, Any]) -> Sizes:
    projected = shapes.get("weight_hr_l0")
    return {
        "input_size": shapes["weight_ih_l0"][1],
        "hidden_size": projected[1] if projected else shapes["weight_hh_l0"][1],
        "proj_size": projected[0] if projected else 0,
    }


def _recurrent_cell(_: nn.RNNCellBase, shapes: Shapes, __: Mapping[str, Any]) -> Sizes:
    return {"input_size": shapes["weight_ih"][1], "hidden_size": shapes["weight_hh"][1]}


def _attention(module: nn.MultiheadAttention, shapes: Shapes, _: Mapping[str, Any]) -> Sizes:
    name = "in_proj_weight" if "in_proj_weight" in shapes else "q_proj_weight"
    if name not in shapes:
        return {}
    before = getattr(module, name).shape
    features = shapes[name][1]
    return {
        "embed_dim": features,
        "kdim": shapes["k_proj_weight"][1] if "k_proj_weight" in shapes else features,
        "vdim": shapes["v_proj_weight"][1] if "v_proj_weight" in shapes else features,
        "num_heads": module.num_heads * shapes[name][0] // before[0],
    }


_READERS: tuple[tuple[type | tuple[type, ...], _Reader], ...] = (
    (_ConvNd, _convolution),
    (nn.Linear, _named("weight", "out_features", "in_features")),
    (nn.Bilinear, _named("weight", "out_features", "in1_features", "in2_features")),
    ((nn.Embedding, nn.EmbeddingBag), _named("weight", "num_embeddings", "embedding_dim")),
    (nn.PReLU, _named("weight", "num_parameters")),
    (_NormBase, _batch_norm),
    ((nn.LayerNorm, nn.RMSNorm), _last_axes),
    (nn.GroupNorm, _group_norm),
    (nn.Unflatten, _unflatten),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _recurrent_cell),
    (nn.MultiheadAttention, _attention),
)
