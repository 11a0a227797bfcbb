"""What flows where in a plain-data graph: ancestors, readers, shared memory, and what nothing needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from demiglace.graph.plain.nodes import GraphData, Node, NodeRef, references
from demiglace.graph.plain.operators import operator_named

OUTPUT = ""
"""Stands for the model's outputs among the readers of a node."""


class Flow:
    """Questions about the values of a graph, inputs included, all by the names of nodes."""

    def __init__(self, data: GraphData) -> None:
        self.data = data
        self.nodes = {node.name: node for node in data.nodes}
        self._bits = {name: 1 << at for at, name in enumerate([*self._input_names(), *self.nodes])}

    def _input_names(self) -> Iterator[str]:
        return (one.name for one in self.data.inputs)

    @cached_property
    def ancestors(self) -> dict[str, int]:
        """For each value the set of what it is made from and itself, as bits."""
        found = {name: self._bits[name] for name in self._input_names()}
        for node in self.data.nodes:
            found[node.name] = self._bits[node.name]
            if not is_valueless(node):
                for one in read_by(node):
                    found[node.name] |= found[one]
        return found

    @cached_property
    def readers(self) -> dict[str, set[str]]:
        """The nodes that read each value, those aside that only take its size."""
        found: dict[str, set[str]] = {name: set() for name in self._bits}
        for node in self.data.nodes:
            for one in read_by(node) if not is_valueless(node) else ():
                found[one].add(node.name)
        for reference in references(self.data.outputs):
            if isinstance(reference, NodeRef):
                found[reference.name].add(OUTPUT)
        return found

    @cached_property
    def homes(self) -> dict[str, str]:
        """For each value the first one that has its memory: itself, where it has memory of its own."""
        found = {name: name for name in self._input_names()}
        for node in self.data.nodes:
            source = _aliased(node)
            # A view of a parameter has the parameter's memory, which no node stands for.
            found[node.name] = node.name if source is None else found.get(source, source)
        return found

    def is_made_from(self, value: str, source: str) -> bool:
        """Whether a value depends on another, or is it."""
        return bool(self.ancestors[value] & self._bits[source])

    def between(self, source: str, end: str) -> list[str]:
        """The nodes by which `end` depends on `source`, `end` among them, in order."""
        reach = self.ancestors[end]
        return [
            name
            for name in self.nodes
            if name != source and reach & self._bits[name] and self.is_made_from(name, source)
        ]

    def only_in(self, value: str, other: str) -> list[str]:
        """The nodes that a value is made from and another is not."""
        rest = self.ancestors[value] & ~self.ancestors[other]
        return [name for name in self.nodes if rest & self._bits[name]]

    def writers(self, home: str) -> list[str]:
        """The nodes that change a home's memory in place."""
        return [
            node.name for node in self.data.nodes if any(self.homes.get(one) == home for one in written(node))
        ]

    def dead(self, bypassed: Mapping[str, str]) -> set[str]:
        """The nodes that nothing needs when each sum of `bypassed` is what it names, these sums included.

        Args:
            bypassed: values by the names of the sums that they take the place of.
        """

        def value(name: str) -> str:
            while name in bypassed:
                name = bypassed[name]
            return name

        alive = {value(name) for name, readers in self.readers.items() if OUTPUT in readers}
        before = -1
        while before < len(alive):
            before = len(alive)
            for node in reversed(self.data.nodes):
                # What changes a value that is needed is needed, whoever reads its result.
                changes = any(self.homes.get(one, one) in alive for one in written(node))
                if node.name not in bypassed and (node.name in alive or changes):
                    alive |= {node.name, *map(value, read_by(node))}
        return self.nodes.keys() - alive


def read_by(node: Node) -> list[str]:
    """The values of nodes and inputs that a node reads."""
    return [one.name for one in node.references() if isinstance(one, NodeRef)]


def is_size(node: Node) -> bool:
    """Whether a node computes with sizes and not with values."""
    if node.op.startswith(("aten.", "demiglace.")):
        return node.op.startswith("aten.sym_")
    return node.op != "operator.getitem"


def is_valueless(node: Node) -> bool:
    """Whether what a node gives depends on the sizes of what it reads alone: sizes, fresh tensors."""
    fresh = ("aten.new_", "aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like")
    return is_size(node) or node.op.startswith(fresh)


def written(node: Node) -> list[str]:
    """The values that a node changes in place."""
    schema = _schema(node)
    if schema is None or not schema.is_mutable:
        return []
    changed = (
        given
        for argument, given in zip(schema.arguments, node.args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return [one.name for one in references(list(changed)) if isinstance(one, NodeRef)]


def _aliased(node: Node) -> str | None:
    """The value whose memory a node's result may share: that of a view, or what it changed in place."""
    schema = _schema(node)
    if schema is None:
        return next(iter(read_by(node)), None) if node.op == "operator.getitem" else None
    shared: Collection[Any] = [
        given
        for argument, given in zip(schema.arguments, node.args, strict=False)
        # Dropout at inference gives back its input, and its schema does not say so.
        if argument.alias_info is not None or ("dropout" in node.op and argument.name == "input")
    ]
    return next((one.name for one in references(list(shared)) if isinstance(one, NodeRef)), None)


def _schema(node: Node) -> Any:
    return getattr(operator_named(node.op), "_schema", None)
