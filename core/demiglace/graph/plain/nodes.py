"""The plain-data graph's parts: what a model computes, as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from demiglace.graph.plain.tree import Tree

Dim: TypeAlias = int | str
"""A dimension's size, or the expression of the batch size that it is, such as `4*s0`."""


@dataclass(frozen=True)
class NodeRef:
    """The value of an input or an earlier node."""

    name: str


@dataclass(frozen=True)
class TensorRef:
    """A parameter, buffer or constant by its qualified name."""

    name: str


@dataclass(frozen=True)
class Here:
    """The device that the model is on."""


@dataclass
class Node:
    """One call of an operator. A cut may edit the literals among its arguments in place.

    An argument is a `NodeRef`, a `TensorRef`, a list of arguments, or a literal: a number, text, `None`,
    `Here`, a torch dtype, layout or memory format. Sizes that follow the batch are nodes of their own.
    """

    #: Unique in its graph.
    name: str
    #: As in `aten.conv2d.default` or `operator.mul`; always one of the allow-list.
    op: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    #: Of the output when it is one tensor.
    shape: list[Dim] | None = None
    #: Qualified name of the innermost layer that made the call; empty for the root.
    layer: str = ""

    def references(self) -> Iterator[NodeRef | TensorRef]:
        """What this node reads, in order."""
        yield from references([self.args, list(self.kwargs.values())])


@dataclass(frozen=True)
class Input:
    """One leaf of the inputs: a tensor, or a value that was fixed when the model was traced."""

    name: str
    #: `None` when it is not a tensor.
    shape: list[Dim] | None = None
    #: What the caller must pass when it is not a tensor.
    value: Any = None


@dataclass
class GraphData:
    """A model's computation at inference, without its tensors' values."""

    #: The containers of the inputs: a tuple of the positional ones and a dict of those by keyword.
    input_tree: Tree
    inputs: list[Input]
    nodes: list[Node]
    output_tree: Tree
    #: The outputs' leaves: arguments as in a `Node`.
    outputs: list[Any]
    #: Class names of each layer, from its own to its bases, by qualified name; outer ones before inner.
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Names of the buffers that are outside the state dict.
    transient: tuple[str, ...] = ()

    def output_of(self, layer: str) -> str | None:
        """The node whose value leaves a layer last, or `None` when nothing does.

        Args:
            layer: qualified name; the layers inside it belong to it.
        """
        inside = {node.name for node in self.nodes if _within(node.layer, layer)}
        left = {ref.name for ref in references(self.outputs) if ref.name in inside}
        for node in self.nodes:
            if node.name not in inside:
                left |= {ref.name for ref in node.references() if ref.name in inside}
        return next((node.name for node in reversed(self.nodes) if node.name in left), None)


def _within(layer: str, outer: str) -> bool:
    return layer == outer or layer.startswith(f"{outer}.") or not outer


def references(value: Any) -> Iterator[NodeRef | TensorRef]:
    """The references in a nested argument."""
    if isinstance(value, NodeRef | TensorRef):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def replaced(value: Any, replace: Mapping[type, Callable[[Any], Any]]) -> Any:
    """A nested argument with every value of a type that `replace` knows handed to its function."""
    if isinstance(value, list):
        return [replaced(inner, replace) for inner in value]
    function = replace.get(type(value))
    return value if function is None else function(value)
