"""A plain-data graph whose layers are torch's own again, so that what looks at layers finds them at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.graph.edits import Swap
from demiglace.graph.names import named_tensors
from demiglace.graph.plain.described import described
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import Node, NodeRef, TensorRef
from demiglace.graph.plain.operators import operator_named


class LayeredGraph(PlainGraph):
    """A view of a graph, which has its tensors: linear layers, convolutions, embeddings and norms are called
    as modules.

    A layer is one that reads its own `weight` and `bias`, and in all its calls with the same literals. So
    hooks at these layers fire, and their attributes tell what a module's would. All others stay as they are.

    A graph becomes this for good when one of its layers is swapped: the calls in its data remain those of the
    layers that were, and `swaps` tells what stands in their places.
    """

    def __init__(self, graph: PlainGraph) -> None:
        flags = {name: each.training for name, each in graph.named_modules(remove_duplicate=False)}
        self._called: dict[str, nn.Module] = {}
        super().__init__(graph.graph_data, dict(named_tensors(graph)), flags)
        #: What was put in place of layers, in order.
        self.swaps: list[Swap] = []
        #: The tensors before the first swap; see `described`.
        self.unswapped: dict[str, Any] = {}
        calls: dict[str, list[Node]] = {}
        for node in graph.graph_data.nodes:
            if self._reads_own_tensors(node):
                calls.setdefault(node.layer, []).append(node)
        for path, nodes in calls.items():
            if all((one.op, _literals(one)) == (nodes[0].op, _literals(nodes[0])) for one in nodes):
                self._replace(path, nodes)
        self._prepare()

    def about_to_swap(self) -> None:
        """Note the tensors, if no layer was swapped yet."""
        if not self.swaps:
            self.unswapped = described(self)

    def _reads_own_tensors(self, node: Node) -> bool:
        """Whether a node computes what a layer of torch does, on that layer's own tensors."""
        if node.op not in _BUILDERS or not node.layer or not isinstance(_input(node), NodeRef):
            return False
        given, layer = bound(node), self.get_submodule(node.layer)
        return all(
            given.get(own) is None or self._is(given[own], layer, own)
            for own in ("weight", "bias", "running_mean", "running_var")
        )

    def _is(self, argument: Any, layer: nn.Module, own: str) -> bool:
        """Whether an argument is a layer's own tensor of that name, be it by another name that it has."""
        held = layer._parameters.get(own, layer._buffers.get(own))
        return isinstance(argument, TensorRef) and held is getattr(*self._homes[argument.name])

    def _replace(self, path: str, nodes: list[Node]) -> None:
        plain = self.get_submodule(path)
        with torch.device("meta"):
            layer = _BUILDERS[nodes[0].op](bound(nodes[0]), plain)
        layer._parameters.update({own: plain._parameters.get(own) for own in layer._parameters})
        layer._buffers.update({own: plain._buffers.get(own) for own in layer._buffers})
        # Those that other calls of the graph belong to, such as the activation of a norm's module.
        layer._modules.update(plain._modules)
        layer.training = plain.training
        layer.original_types = plain.original_types
        parent, _, own = path.rpartition(".")
        self.get_submodule(parent).add_module(own, layer)
        self._called |= {node.name: layer for node in nodes}

    def _call(self, node: Node, training: bool, read: Mapping[type, Callable[[Any], Any]]) -> Any:
        layer = self._called.get(node.name)
        return super()._call(node, training, read) if layer is None else layer(read[NodeRef](_input(node)))


def bound(node: Node) -> dict[str, Any]:
    """A node's arguments by the names of its operator's schema, defaults filled in."""
    schema = operator_named(node.op)._schema.arguments  # type: ignore[attr-defined]
    defaults = {one.name: one.default_value for one in schema if one.has_default_value()}
    return defaults | dict(zip((one.name for one in schema), node.args, strict=False)) | node.kwargs


def _input(node: Node) -> Any:
    """What a layer of torch would be called with."""
    return node.args[_INPUTS.get(node.op, 0)]


def _literals(node: Node) -> list[Any]:
    given = list(bound(node).values())
    del given[_INPUTS.get(node.op, 0)]
    return given


def _convolution(kind: type[Any]) -> Callable[[Mapping[str, Any], nn.Module], nn.Module]:
    def build(given: Mapping[str, Any], plain: nn.Module) -> nn.Module:
        weight: Tensor = plain.get_parameter("weight")
        transposed, groups = "output_padding" in given, given["groups"]
        sides = [weight.shape[0], weight.shape[1] * groups]
        more = {"output_padding": tuple(given["output_padding"])} if transposed else {}
        rank = weight.dim() - 2
        return kind(
            *(sides if transposed else reversed(sides)),
            tuple(weight.shape[2:]),
            bias=given["bias"] is not None,
            groups=groups,
            **{key: _spread(given[key], rank) for key in ("stride", "padding", "dilation")},
            **more,
        )

    return build


def _spread(value: Any, rank: int) -> Any:
    """A literal for each dimension: torch lets one number stand for all."""
    if not isinstance(value, list):
        return value
    return tuple(value) * (rank if len(value) == 1 else 1)


def _linear(given: Mapping[str, Any], plain: nn.Module) -> nn.Module:
    outputs, inputs = plain.get_parameter("weight").shape
    return nn.Linear(inputs, outputs, bias=given["bias"] is not None)


def _embedding(given: Mapping[str, Any], plain: nn.Module) -> nn.Module:
    rows, width = plain.get_parameter("weight").shape
    at = given["padding_idx"]
    return nn.Embedding(rows, width, None if at < 0 else at)


def _batch_norm(given: Mapping[str, Any], plain: nn.Module) -> nn.Module:
    tensors = [plain._parameters.get("weight"), plain._buffers.get("running_mean")]
    size = next((one.numel() for one in tensors if one is not None), 0)
    tracked, affine = given["running_mean"] is not None, given["weight"] is not None
    # Torch's three batch norms differ in the shapes that they let pass; 1, 2 and 3 dimensions are told here.
    return _AnyBatchNorm(size, given["eps"], given["momentum"], affine, tracked)


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Every shape that was traced is right."""


def _layer_norm(given: Mapping[str, Any], _: nn.Module) -> nn.Module:
    affine = given["weight"] is not None
    return nn.LayerNorm(given["normalized_shape"], given["eps"], affine, bias=given["bias"] is not None)


def _group_norm(given: Mapping[str, Any], plain: nn.Module) -> nn.Module:
    weight = plain._parameters.get("weight")
    channels = given["num_groups"] if weight is None else weight.numel()
    return nn.GroupNorm(given["num_groups"], channels, given["eps"], weight is not None)


_BUILDERS: dict[str, Callable[[Mapping[str, Any], nn.Module], nn.Module]] = {
    "aten.conv1d.default": _convolution(nn.Conv1d),
    "aten.conv2d.default": _convolution(nn.Conv2d),
    "aten.conv3d.default": _convolution(nn.Conv3d),
    "aten.conv1d.padding": _convolution(nn.Conv1d),
    "aten.conv2d.padding": _convolution(nn.Conv2d),
    "aten.conv3d.padding": _convolution(nn.Conv3d),
    "aten.conv_transpose1d.default": _convolution(nn.ConvTranspose1d),
    "aten.conv_transpose2d.input": _convolution(nn.ConvTranspose2d),
    "aten.conv_transpose3d.input": _convolution(nn.ConvTranspose3d),
    "aten.linear.default": _linear,
    "aten.embedding.default": _embedding,
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
}

_INPUTS = {"aten.embedding.default": 1}
"""Which argument is the layer's input, where it is not the first."""
