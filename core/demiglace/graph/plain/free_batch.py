"""A plain-data graph of any batch size, out of two that were traced at one batch size each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from demiglace.graph.plain.nodes import Dim, GraphData, Input, Node, NodeRef


def with_free_batch(one: GraphData, other: GraphData) -> GraphData | None:
    """The graph `one` with its batch size left free, its nodes named as they are.

    Tracing with fixed sizes twice takes less time than tracing with a symbol in the place of the batch's,
    and names the calls alike. A literal that is `a` times the batch's size in both becomes a node that
    multiplies it by `a`; the shapes of nodes say `a*s0`.

    Args:
        one: a model traced on some items.
        other: the same model traced on more.

    Returns:
        `None` where the graphs differ by anything else, such as by a number of calls, or where no input has
        the batch's size: only a symbolic trace can tell what such a model does.
    """
    try:
        return _Merge(one, other).data()
    except _DifferentError:
        return None


class _DifferentError(Exception):
    """The graphs differ by more than multiples of the batch's size."""


class _Merge:
    """Compares two graphs part by part."""

    def __init__(self, one: GraphData, other: GraphData) -> None:
        self.one, self.other = one, other
        pairs = list(_paired(one.inputs, other.inputs))
        _same([a.name for a, _ in pairs], [b.name for _, b in pairs])
        #: The first input that has the batch's size in its first dimension, and that size in both graphs.
        self.input, self.sizes = _batch_of(pairs)
        self.size = "batch_size"
        names = [each.name for each in one.inputs] + [each.name for each in one.nodes]
        while any(name.startswith(self.size) for name in names):
            self.size += "_"
        #: The nodes that give the batch's size times a factor, by name; that of the size is the first.
        self.sizes_read: dict[str, Node] = {}

    def data(self) -> GraphData:
        one, other = self.one, self.other
        _same((one.input_tree, one.output_tree), (other.input_tree, other.output_tree))
        inputs = [self._input(a, b) for a, b in _paired(one.inputs, other.inputs)]
        nodes = [self._node(a, b) for a, b in _paired(one.nodes, other.nodes)]
        outputs = self._argument(one.outputs, other.outputs)
        return replace(one, inputs=inputs, nodes=[*self.sizes_read.values(), *nodes], outputs=outputs)

    def _input(self, one: Input, other: Input) -> Input:
        _same(one.value, other.value)
        return replace(one, shape=self._shape(one.shape, other.shape))

    def _node(self, one: Node, other: Node) -> Node:
        _same((one.name, one.op, one.layer), (other.name, other.op, other.layer))
        _same(list(one.kwargs), list(other.kwargs))
        args = self._argument(one.args, other.args)
        kwargs = {name: self._argument(value, other.kwargs[name]) for name, value in one.kwargs.items()}
        return Node(one.name, one.op, args, kwargs, self._shape(one.shape, other.shape), one.layer)

    def _argument(self, one: Any, other: Any) -> Any:
        if isinstance(one, list) and isinstance(other, list):
            return [self._argument(a, b) for a, b in _paired(one, other)]
        if type(one) is int and type(other) is int and one != other:
            return self._product(self._factor(one, other))
        _same(one, other)
        return one

    def _product(self, factor: int) -> NodeRef:
        size = Node(self.size, "aten.sym_size.int", [NodeRef(self.input), 0])
        product = Node(f"{self.size}_times_{factor}", "operator.mul", [NodeRef(self.size), factor])
        for node in [size] if factor == 1 else [size, product]:
            self.sizes_read.setdefault(node.name, node)
        return NodeRef(node.name)

    def _shape(self, one: Sequence[Dim] | None, other: Sequence[Dim] | None) -> list[Dim] | None:
        if one is None or other is None:
            _same(one, other)
            return None
        return [self._dim(a, b) for a, b in _paired(one, other)]

    def _dim(self, one: Dim, other: Dim) -> Dim:
        if one == other:
            return one
        factor = self._factor(one, other)
        return "s0" if factor == 1 else f"{factor}*s0"

    def _factor(self, one: Dim, other: Dim) -> int:
        """How many times the batch's size two numbers are."""
        if not isinstance(one, int) or not isinstance(other, int):
            raise _DifferentError
        factor, rest = divmod(one, self.sizes[0])
        if rest or factor < 1 or factor * self.sizes[1] != other:
            raise _DifferentError
        return factor


def _batch_of(pairs: Sequence[tuple[Input, Input]]) -> tuple[str, tuple[int, int]]:
    for one, other in pairs:
        if one.shape and other.shape and one.shape[0] != other.shape[0]:
            sizes = one.shape[0], other.shape[0]
            if isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] > 0:
                return one.name, (sizes[0], sizes[1])
    raise _DifferentError


def _paired(one: Sequence[Any], other: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(one) != len(other):
        raise _DifferentError
    return list(zip(one, other, strict=True))


def _same(one: Any, other: Any) -> None:
    """Refuse two values that are not one; `True` is not 1, nor is 1.0."""
    if type(one) is not type(other) or one != other:
        raise _DifferentError
