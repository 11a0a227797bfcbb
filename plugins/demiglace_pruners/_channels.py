"""What belongs to a layer's output channels besides its weight: biases, and the norm that follows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from demiglace.errors import GraphError
from demiglace.graph.export import export

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from demiglace.graph import ModelGraph, Weight

NORMS = ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")
MOVES = ("permute", "transpose", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "movedim")
"""Operators that rearrange axes: a norm behind one runs over axes that this file does not follow."""


class NotFollowed(Exception):
    """It cannot be told what belongs to a layer's channels; the message is the reason."""


def output_dim(model: ModelGraph, weight: Weight) -> int:
    """The dimension of a weight that runs over outputs: the second in a transposed convolution."""
    from torch.nn.modules.conv import _ConvTransposeNd

    return 1 if isinstance(_module(model, weight), _ConvTransposeNd) else 0


class Channels:
    """Finds the vectors of a weight's output channels; the model is traced once, when first needed."""

    def __init__(self, model: ModelGraph) -> None:
        self.model = model

    def vectors(self, weight: Weight, dim: int) -> dict[str, int]:
        """Names and sizes of the vectors that go with the slices of a weight along `dim`.

        A size is a multiple of the number of slices where groups share them.

        Raises:
            NotFollowed: when that cannot be told.
        """
        from torch import nn

        if dim >= weight.tensor.dim():
            raise NotFollowed(f"its weight has no dimension {dim}")
        if isinstance(_module(self.model, weight), nn.RNNBase):
            raise NotFollowed("the slices of a recurrent layer are gates, not channels")
        if dim != output_dim(self.model, weight):
            return {}
        return self._biases(weight) | self._norm_vectors(weight, weight.tensor.shape[dim])

    def _biases(self, weight: Weight) -> dict[str, int]:
        """The biases beside a weight, in every module that shares it."""
        biases = {}
        for name in self._names(weight):
            path, _, own = name.rpartition(".")
            holder = self.model.module.get_submodule(path)
            bias = holder._parameters.get(own.replace("weight", "bias")) if "weight" in own else None
            if bias is not None:
                biases[name.removesuffix(own) + own.replace("weight", "bias")] = bias.numel()
        return biases

    def _norm_vectors(self, weight: Weight, slices: int) -> dict[str, int]:
        if self._program is None:
            if _has_norm_vectors(self.model.module):
                raise NotFollowed(
                    f"the model cannot be traced to the normalization after it ({self._refusal})"
                )
            return {}
        inputs = self._program.graph_signature.inputs_to_parameters
        names = self._names(weight)
        found: dict[str, int] = {}
        for placeholder in self._program.graph.find_nodes(op="placeholder"):
            if inputs.get(placeholder.name) in names:
                for layer in placeholder.users:
                    found |= dict(_vectors_after(layer, inputs, slices))
        return found

    def _names(self, weight: Weight) -> set[str]:
        """All names of a weight's parameter."""
        named = dict(self.model.module.named_parameters(remove_duplicate=False))
        return {name for name, parameter in named.items() if parameter is named[weight.name]}

    @cached_property
    def _program(self) -> ExportedProgram | None:
        try:
            return export(self.model.module, self.model.example)
        except GraphError as error:
            self._refusal = error.faults[0].message
            return None


def _module(model: ModelGraph, weight: Weight) -> nn.Module:
    return model.module.get_submodule("" if weight.module == "." else weight.module)


def _has_norm_vectors(module: nn.Module) -> bool:
    """Whether some module has vectors without a weight of two dimensions: what normalizations have."""
    return any(
        parameters and all(parameter.dim() < 2 for parameter in parameters)
        for parameters in (list(child.parameters(recurse=False)) for child in module.modules())
    )


def _vectors_after(layer: Node, inputs: dict[str, str], slices: int) -> Iterator[tuple[str, int]]:
    """Names and sizes of the norm vectors that act on a layer's output, found through pointwise operators.

    Raises:
        NotFollowed: when a normalization is reached that cannot be masked channel by channel.
    """
    convolution = "conv" in _operator(layer)
    if not convolution and "linear" not in _operator(layer):
        raise NotFollowed(f"it is used by {_operator(layer)}, which is neither a convolution nor linear")
    seen, pending = {layer}, [(user, layer, False) for user in layer.users]
    while pending:
        node, source, moved = pending.pop()
        name = _operator(node)
        if name in NORMS and node.args[0] is source:
            if moved or not _by_channel(name, convolution, source):
                raise NotFollowed(f"the {name} after it runs over other axes than its channels")
            yield from _affine(node, inputs, slices)
        elif node not in seen and (name in MOVES or _keeps_channels(node)):
            seen.add(node)
            pending += [(user, node, moved or name in MOVES) for user in node.users]


def _operator(node: Node) -> str:
    """`conv2d` for `aten.conv2d.default`; the node's name for what is no operator of torch."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet).rpartition(".")[2] if packet is not None else node.name


def _keeps_channels(node: Node) -> bool:
    """Whether an operator has one tensor input and mixes no channels: pointwise, pooling, dropout."""
    import torch

    tags = getattr(node.target, "tags", ())
    passing = torch.Tag.pointwise in tags or "pool" in _operator(node) or "dropout" in _operator(node)
    return passing and len(node.all_input_nodes) == 1


def _by_channel(norm: str, convolution: bool, source: Node) -> bool:
    """Whether a normalization's vectors run over the axis that the layer's channels are on."""
    if norm in {"layer_norm", "rms_norm"}:
        return not convolution
    return convolution or source.meta["val"].dim() == 2


def _affine(node: Node, inputs: dict[str, str], slices: int) -> Iterator[tuple[str, int]]:
    """The names and sizes of a normalization's weight and bias."""
    name, schema = _operator(node), node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((one.name for one in schema), node.args, strict=False)) | node.kwargs
    for own in ("weight", "bias"):
        if own not in {one.name for one in schema}:
            continue
        vector = given.get(own)
        parameter = None if vector is None else inputs.get(vector.name)
        if vector is None or parameter is None:
            raise NotFollowed(f"the {name} after it has no {own} that could be masked")
        size = vector.meta["val"].numel()
        if len(vector.users) > 1:
            raise NotFollowed(f"the {name} after it shares its {own} with others")
        if vector.meta["val"].dim() != 1 or size % slices:
            raise NotFollowed(f"the {name} after it runs over other axes than its channels")
        yield parameter, size
