"""A plain-data graph without some of its residual branches, or with their values at zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demiglace.errors import GraphError
from demiglace.graph.names import named_tensors
from demiglace.graph.plain.flow import Flow
from demiglace.graph.plain.lowering import described_layers, used_tensors
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import GraphData, Node, NodeRef, replaced


def bypassed(graph: PlainGraph, sum_: str, skip: str) -> PlainGraph:
    """The graph in which a sum is its operand `skip`, without what only the other operand needs.

    It holds the parameters and buffers of `graph` that are left, which stays as it is.

    Raises:
        GraphError: when there are no such nodes.
    """
    flow = Flow(graph.graph_data)
    if sum_ not in flow.nodes or skip not in flow.homes:
        raise GraphError(f"the graph has no sum {sum_!r} of {skip!r}")
    dead = flow.dead({sum_: skip})
    writers = set(flow.writers(flow.homes[sum_])) - dead - {sum_}
    node = flow.nodes[sum_]
    # What works in place on the sum must not reach the shortcut itself.
    copy = [Node(sum_, "aten.clone.default", [NodeRef(skip)], {}, node.shape, node.layer)] if writers else []
    value = NodeRef(sum_ if copy else skip)
    nodes = []
    for one in graph.graph_data.nodes:
        if one.name == sum_:
            nodes += copy
        elif one.name not in dead:
            nodes.append(reading(one, {sum_: value}))
    return rebuilt(graph, nodes, renamed(graph.graph_data.outputs, {sum_: value}))


def zeroed(graph: PlainGraph, ends: Mapping[str, str]) -> PlainGraph:
    """The graph in which sums read zeros in place of a branch's value.

    Args:
        graph: the graph, which stays as it is.
        ends: by sum, the operand that is zero.
    """
    nodes: list[Node] = []
    for one in graph.graph_data.nodes:
        end = ends.get(one.name)
        if end is None:
            nodes.append(one)
            continue
        zeros = f"{one.name}.zeros"
        nodes.append(Node(zeros, "aten.zeros_like.default", [NodeRef(end)], {}, one.shape, one.layer))
        nodes.append(reading(one, {end: NodeRef(zeros)}))
    return rebuilt(graph, nodes, graph.graph_data.outputs)


def reading(node: Node, names: Mapping[str, NodeRef]) -> Node:
    """The node, reading other values in place of some."""
    kwargs = {key: renamed(value, names) for key, value in node.kwargs.items()}
    return Node(node.name, node.op, renamed(node.args, names), kwargs, node.shape, node.layer)


def renamed(value: Any, names: Mapping[str, NodeRef]) -> Any:
    """A nested argument with other values in place of some."""
    return replaced(value, {NodeRef: lambda one: names.get(one.name, one)})


def rebuilt(graph: PlainGraph, nodes: list[Node], outputs: list[Any]) -> PlainGraph:
    """A graph of other nodes on the tensors of this one that they read."""
    old = graph.graph_data
    data = GraphData(old.input_tree, old.inputs, nodes, old.output_tree, outputs)
    tensors = used_tensors(data, dict(named_tensors(graph)))
    data.layers = described_layers(graph, data, tensors)
    data.transient = tuple(name for name in old.transient if name in tensors)
    flags = {name: each.training for name, each in graph.named_modules(remove_duplicate=False)}
    return PlainGraph(data, tensors, flags)
