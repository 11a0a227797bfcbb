"""Reading an exported program into plain data, node by node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind, OutputKind

from demiglace.errors import GraphError
from demiglace.graph.plain.nodes import GraphData, Here, Input, Node, NodeRef, TensorRef
from demiglace.graph.plain.operators import is_allowed, name_of
from demiglace.graph.plain.tree import tree_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_LITERALS = (bool, int, float, str, complex, torch.dtype, torch.layout, torch.memory_format, type(None))
_CHECKS = ("aten._assert", "aten.sym_constrain")
"""Operators that check sizes and compute nothing."""


class Reader:
    """Reads an exported program node by node."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        #: What each fx node is called here.
        self.names: dict[str, NodeRef | TensorRef] = {}

    def data(self) -> GraphData:
        """The graph, without its layers' classes.

        Raises:
            GraphError: when it holds something that plain data cannot.
        """
        inputs = self._inputs()
        nodes = [self._node(node) for node in self._calls()]
        spec = self.program.call_spec
        trees = [tree_of(each) for each in (spec.in_spec, spec.out_spec) if each is not None]
        return GraphData(trees[0], inputs, nodes, trees[1], self._outputs())

    def _inputs(self) -> list[Input]:
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        inputs = []
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(self._input(node, spec.arg))
                self.names[node.name] = NodeRef(node.name)
            elif spec.kind in {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}:
                self.names[node.name] = TensorRef(str(spec.target))
            else:
                raise GraphError(
                    f"the model uses {spec.target!r}, an object that a plain-data graph cannot hold"
                )
        return inputs

    def _input(self, node: fx.Node, argument: Any) -> Input:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return Input(node.name, None, getattr(argument, "value", None))
        shape = _shape(value)
        return Input(node.name, shape)

    def _calls(self) -> list[fx.Node]:
        """The calls that compute something, without checks and what only they read."""
        alive: set[fx.Node] = set()
        for node in reversed(list(self.program.graph.nodes)):
            if node.op == "output" or (node.op == "call_function" and _writes(node)):
                alive.add(node)
            if node in alive and not _is_check(node):
                alive.update(node.all_input_nodes)
        return [
            node
            for node in self.program.graph.nodes
            if node.op in {"call_function", "get_attr", "call_module"}
            and node in alive
            and not _is_check(node)
        ]

    def _node(self, node: fx.Node) -> Node:
        op = _op_name(node)
        args = self._argument(list(node.args))
        kwargs = {name: self._argument(value) for name, value in node.kwargs.items()}
        self.names[node.name] = NodeRef(node.name)
        return Node(node.name, op, args, kwargs, _shape(node.meta.get("val")), _layer(node))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._argument(inner) for inner in value]
        if isinstance(value, fx.Node):
            return self.names[value.name]
        if isinstance(value, torch.device):
            return Here()
        if isinstance(value, _LITERALS):
            return value
        raise GraphError(f"an operator takes a {type(value).__name__}, which a plain-data graph cannot hold")

    def _outputs(self) -> list[Any]:
        """The leaves of what the model returns."""
        leaves = []
        for spec in self.program.graph_signature.output_specs:
            if spec.kind != OutputKind.USER_OUTPUT:
                raise GraphError(
                    f"the model writes to its {spec.target!r} in eval mode; a plain-data graph does not"
                )
            name = getattr(spec.arg, "name", None)
            leaves.append(self.names[name] if name in self.names else getattr(spec.arg, "value", None))
        return leaves


def _is_check(node: fx.Node) -> bool:
    return str(node.target).startswith(_CHECKS)


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _op_name(node: fx.Node) -> str:
    name = name_of(node.target)
    if not is_allowed(name):
        raise GraphError(
            f"layer {_layer(node) or '.'!r} calls {name!r}, which a plain-data graph cannot hold",
            hint="only torch's own tensor operators can be held",
        )
    return name


def _layer(node: fx.Node) -> str:
    """The innermost layer's qualified name; a second call of the same layer has the same."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty_nn_module_stack")]
    return re.sub(r"@\d+", "", paths[-1]) if paths else ""


def _shape(value: Any) -> list[int | str] | None:
    if not isinstance(value, Tensor):
        return None
    # A size that tracing fixed late is still symbolic, and prints as its number.
    sizes = [str(size) for size in value.shape]
    return [int(size) if size.isdigit() else size for size in sizes]
