"""Attributes of modules that hold sizes, as they must be after a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from demiglace.graph.edits import SetAttr
from demiglace.graph.labels import Value
from demiglace.graph.literals import Removal
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from demiglace.graph.edits import Json

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes after the cut, by the name that the module itself gives a parameter or buffer."""


def attributes(module: nn.Module, removal: Removal, shapes: Shapes) -> Iterator[SetAttr]:
    """The attributes that change.

    Args:
        module: the model, before the cut.
        removal: what goes.
        shapes: of every parameter and buffer after the cut, by qualified name.
    """
    literals: dict[str, dict[str, Any]] = {}
    for call, changes in removal.literals:
        literals.setdefault(call.layer, {}).update(changes)
    sizes = _sizes(removal)
    for name, child in module.named_modules():
        own = {
            key: shapes[f"{name}.{key}" if name else key]
            for key in (*child._parameters, *child._buffers)
            if (f"{name}.{key}" if name else key) in shapes
        }
        found = _standard(child, own, literals.get(name or ROOT, {}))
        if not type(child).__module__.startswith("torch.nn"):
            found = {**_guessed(child, sizes.get(name or ROOT, {})), **found}
        for attribute, value in found.items():
            old = getattr(child, attribute)
            if (list(old) if isinstance(old, tuple) else old) != value:
                yield SetAttr(name or ROOT, attribute, value)


def _standard(module: nn.Module, shapes: Shapes, literals: Mapping[str, Any]) -> dict[str, Json]:
    """What torch's own layers, and classes made from them, keep of their sizes."""
    weight = shapes.get("weight")
    match module:
        case _ConvNd() if weight:
            groups = literals.get("groups", module.groups)
            one, other = ("in", "out") if isinstance(module, _ConvTransposeNd) else ("out", "in")
            return {f"{one}_channels": weight[0], f"{other}_channels": weight[1] * groups, "groups": groups}
        case nn.Linear() if weight:
            return {"out_features": weight[0], "in_features": weight[1]}
        case nn.Embedding() | nn.EmbeddingBag() if weight:
            return {"num_embeddings": weight[0], "embedding_dim": weight[1]}
        case _NormBase() if weight or shapes.get("running_mean"):
            return {"num_features": (weight or shapes["running_mean"])[0]}
        case nn.LayerNorm() | nn.RMSNorm():
            return {"normalized_shape": literals.get("normalized_shape", list(module.normalized_shape))}
        case nn.GroupNorm() if weight:
            return {"num_channels": weight[0], "num_groups": literals.get("num_groups", module.num_groups)}
        case nn.PReLU() if weight:
            return {"num_parameters": weight[0]}
        case nn.Unflatten():
            return {"unflattened_size": literals.get("sizes", list(module.unflattened_size))}
        case nn.MultiheadAttention():
            return _attention(module, shapes)
    return {}


def _attention(module: nn.MultiheadAttention, shapes: Shapes) -> dict[str, Json]:
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


def _sizes(removal: Removal) -> dict[str, dict[int, set[int]]]:
    """By layer: which sizes its code met, and what each became."""
    met: dict[str, dict[int, set[int]]] = {}
    for call in removal.tracer.calls:
        results = call.result if isinstance(call.result, list | tuple) else [call.result]
        table = met.setdefault(call.layer, {})
        for value in (*call.values, *results):
            if not isinstance(value, Value):
                continue
            for axis, size in zip(value.axes, value.shape, strict=True):
                table.setdefault(size, set()).add(removal.size(axis, size))
    return met


def _guessed(module: nn.Module, sizes: Mapping[int, set[int]]) -> dict[str, Json]:
    """Whole numbers that a user's own module keeps, where all sizes of that value became one other.

    A guess: verification proves or refutes it.
    """
    return {
        name: next(iter(sizes[value]))
        for name, value in vars(module).items()
        if type(value) is int and not name.startswith("_") and len(sizes.get(value, ())) == 1
    }
