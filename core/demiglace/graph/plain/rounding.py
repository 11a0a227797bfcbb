"""A plain-data graph in which values between layers are 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping

from demiglace.errors import ArtifactError, GraphError
from demiglace.graph.plain.bypassing import reading, rebuilt, renamed
from demiglace.graph.plain.flow import Flow, written
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import GraphData, Node, NodeRef
from demiglace.graph.plain.operators import operator_named

ROUNDED = "demiglace.rounded.default"


def with_roundings(graph: PlainGraph, values: Mapping[str, tuple[float, int]]) -> PlainGraph:
    """The graph in which whatever reads one of these values reads it rounded.

    It holds the parameters and buffers of `graph`, which stays as it is.

    Args:
        graph: any graph.
        values: scale and zero point by the names of nodes.

    Raises:
        GraphError: when there is no such node, or something changes its value in place later.
    """
    data = out_of_place(graph.graph_data)
    flow = Flow(data)
    for name in values:
        if name not in flow.nodes or flow.writers(flow.homes[name]):
            raise GraphError(f"the graph has no value {name!r} that stays as it is, so it cannot be rounded")
    rounded = {name: NodeRef(f"{name}.rounded") for name in values}
    nodes: list[Node] = []
    for node in data.nodes:
        nodes.append(reading(node, rounded))
        if node.name in values:
            scale, zero = values[node.name]
            arguments = [NodeRef(node.name), float(scale), float(zero)]
            name = rounded[node.name].name
            nodes.append(Node(name, ROUNDED, arguments, {}, node.shape, node.layer))
    return rebuilt(graph, nodes, renamed(data.outputs, rounded))


def out_of_place(data: GraphData) -> GraphData:
    """The same computation with results of their own in place of changes in place, where that is the same.

    A change in place stays where something reads the old value's memory by another name later.
    """
    nodes = list(data.nodes)
    for at, node in enumerate(nodes):
        if not written(node):
            continue
        now = GraphData(data.input_tree, data.inputs, nodes, data.output_tree, data.outputs)
        other = _fresh(node)
        if other is not None and not _seen_elsewhere(now, at):
            nodes[at] = other
    return GraphData(
        data.input_tree, data.inputs, nodes, data.output_tree, data.outputs, data.layers, data.transient
    )


def _fresh(node: Node) -> Node | None:
    """The call with a result of its own; `None` where torch has no such operator."""
    space, packet, overload = node.op.split(".")
    op = f"{space}.{packet.removesuffix('_')}.{overload}"
    try:
        operator_named(op)
    except ArtifactError:
        return None
    return Node(node.name, op, node.args, node.kwargs, node.shape, node.layer)


def _seen_elsewhere(data: GraphData, at: int) -> bool:
    """Whether a change in place is seen by who does not read its result."""
    flow = Flow(data)
    node = data.nodes[at]
    homes = {flow.homes.get(name) for name in written(node)}
    if any(home not in flow.nodes for home in homes):
        return True  # an input's memory, or a parameter's, is the caller's
    before = {one.name for one in data.nodes[:at]}
    old = [name for name in before if flow.homes[name] in homes]
    return any(flow.readers[name] - before - {node.name} for name in old)
