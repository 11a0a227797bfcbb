"""Whether a model that holds integers, or nothing of its zeros, can still be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.quantization.in_graph import on_integers, weights_in_graph
from demiglace.quantization.modules import (
    IntegerLinear,
    QuantizedHolder,
    SparseLinear,
    StaticConv1d,
    StaticConv2d,
)

if TYPE_CHECKING:
    from torch import nn

_ON_INTEGERS = (IntegerLinear, StaticConv1d, StaticConv2d)


def untrainable(module: nn.Module) -> str:
    """Why a model cannot be trained because of the form of its weights; empty when it can.

    Layers that only store integers let gradients through, to other layers with floating-point weights.
    """
    sparse = [name for name, each in module.named_modules() if isinstance(each, SparseLinear)]
    if sparse:
        return f"{_listed(sparse)} holds only the weights that are not zero, and these are fixed"
    if rounding := multiplying_integers(module):
        return f"{_listed(rounding)} computes on integers, which lets no gradient through"
    layers = [name for name, each in module.named_modules() if isinstance(each, QuantizedHolder)]
    layers += [name.rpartition(".")[0] for name, _ in weights_in_graph(module)]
    weights = [one for one in module.parameters() if one.dim() > 1 and one.is_floating_point()]
    if layers and not weights:
        return f"its weights are integers ({_listed(layers)})"
    return ""


def multiplying_integers(module: nn.Module) -> list[str]:
    """The names of what multiplies integers in a model: layers, and nodes of a plain-data graph."""
    layers = [name for name, each in module.named_modules() if isinstance(each, _ON_INTEGERS)]
    return layers + on_integers(module)


def _listed(names: list[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"layer {names[0] or '.'!r}{others}"
