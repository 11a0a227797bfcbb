"""Batch norms that directly follow a convolution or linear layer become part of its weight."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from demiglace.graph.edits import Swap
from demiglace.graph.eval_mode import eval_mode
from demiglace.graph.export import export

if TYPE_CHECKING:
    from torch import fx

    from demiglace.graph import ModelGraph

_RANKS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 2, nn.BatchNorm3d: 5}
_CONVOLUTIONS = ("aten.conv1d", "aten.conv2d", "aten.conv3d")


@dataclass(frozen=True, eq=False)
class Folded:
    """A layer's weight and bias with the batch norm after it in them."""

    #: The batch norm's qualified name.
    norm: str
    #: The children of its module that run after it, such as an activation.
    after: tuple[str, ...]
    #: What each row of the weight was multiplied by; this and the weight in at least float32.
    factor: Tensor
    weight: Tensor
    #: In the layer's dtype.
    bias: Tensor

    def swap(self) -> Swap:
        """The edit that leaves of the norm's module what comes after the norm."""
        if not self.after:
            return Swap(self.norm, "identity")
        return Swap(self.norm, "skip", {"children": list(self.after), "start": "same", "returned": 0})


def foldable(model: ModelGraph) -> dict[str, str]:
    """Batch norms by the layer whose output nothing but they read, both by qualified name.

    Found on the exported graph, so that a use of the layer's output elsewhere, or a second call of either,
    rules the pair out.

    Raises:
        GraphError: when the model cannot be exported.
    """
    program = export(model.module, model.example)
    names = program.graph_signature.inputs_to_parameters
    modules = dict(model.module.named_modules())
    found: dict[str, str] = {}
    uses: dict[str, int] = {}
    for node in program.graph.nodes:
        owner = _owner(node, names)
        uses[owner] = uses.get(owner, 0) + 1
        if not _is(node, ("aten.batch_norm",)) or len(node.args[0].users) != 1:
            continue
        before = _owner(node.args[0], names)
        if before and _gives_channels(node.args[0]) and _after(modules.get(owner)) is not None:
            found[before] = owner
    return {layer: norm for layer, norm in found.items() if uses[layer] == uses[norm] == 1}


def fold(layer: nn.Module, norm: nn.Module, name: str) -> Folded:
    """The layer's parameters with a batch norm in eval mode folded in.

    Args:
        layer: a convolution or linear layer.
        norm: the batch norm that follows it.
        name: of the norm.
    """
    after = _after(norm)
    if (
        after is None
        or not isinstance(norm, _BatchNorm)
        or norm.running_mean is None
        or norm.running_var is None
    ):
        raise TypeError(f"{name!r} is no batch norm with running statistics that can be left out")
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    if weight is None:
        raise TypeError("the layer has no weight")
    # In 16 bits, epsilon would be lost.
    wide = torch.promote_types(weight.dtype, torch.float32)
    factor = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    factor = factor if norm.weight is None else factor * norm.weight.detach()
    start = torch.zeros_like(factor) if bias is None else bias.detach()
    shift = (start - norm.running_mean) * factor
    shift = shift if norm.bias is None else shift + norm.bias.detach()
    scaled = weight.detach() * factor.view(-1, *[1] * (weight.dim() - 1))
    return Folded(name, after, factor, scaled, shift.to(weight.dtype))


def _after(module: nn.Module | None) -> tuple[str, ...] | None:
    """The children that a batch norm's module runs after the norm, by their names; `None` for other modules.

    Libraries put an activation into a subclass of torch's batch norm. What such a module does beside the norm
    is seen by running it on random numbers; one that does not take these alone is not folded.
    """
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module._forward_hooks:
        return None
    if type(module).forward is _BatchNorm.forward:
        return ()
    children = dict(module.named_children())
    size = (8, module.num_features, *[2] * (_dimensions(module) - 2))
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(module.running_mean)
    try:
        with eval_mode(module), torch.no_grad():
            normed = functools.reduce(
                lambda value, child: child(value), children.values(), _normed(module, values)
            )
            same = torch.allclose(normed, module(values), equal_nan=True)
    except Exception:  # it is anybody's code
        return None
    return tuple(children) if same else None


def _normed(module: _BatchNorm, values: Tensor) -> Tensor:
    parameters = (module.running_mean, module.running_var, module.weight, module.bias)
    return F.batch_norm(values, *parameters, eps=module.eps)


def _dimensions(module: _BatchNorm) -> int:
    """Of inputs that a batch norm takes."""
    return next((rank for kind, rank in _RANKS.items() if isinstance(module, kind)), 4)


def _gives_channels(node: fx.Node) -> bool:
    """Whether a layer's outputs lie along the dimension that a batch norm takes for channels, the second."""
    return _is(node, _CONVOLUTIONS) or (_is(node, ("aten.linear",)) and node.meta["val"].dim() == 2)


def _is(node: fx.Node, operators: tuple[str, ...]) -> bool:
    return node.op == "call_function" and str(node.target).rpartition(".")[0] in operators


def _owner(node: fx.Node, names: dict[str, str]) -> str:
    """The module whose `weight` a node reads; empty without one."""
    inputs = [names.get(one.name, "") for one in node.all_input_nodes]
    return next((one.removesuffix(".weight") for one in inputs if one.endswith(".weight")), "")
