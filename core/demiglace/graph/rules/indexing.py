"""Look-ups by index: the axis that is looked up stays, the others are carried along."""

from __future__ import annotations

from demiglace.graph.labels import Axis, Value, plain
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


@rule("aten.embedding")
def embedding(call: Call) -> Value:
    """Rows of a table [rows, features] by an index."""
    table, index = call["weight"], call["indices"]
    call.freeze(table.axes[0], "is looked up by data")
    for axis in index.axes:
        call.freeze(axis, "holds indices")
    call.role(table.axes[1], "produced")
    lead = len(index.shape)
    return Value(call.shape, (*(None,) * lead, table.axes[1]), (*(False,) * lead, table.zero[1]))


@rule("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def bag(call: Call) -> list[Value]:
    """Sums, means or maxima of rows of a table [rows, features]; the other results are bookkeeping."""
    table = call["weight"]
    for value in call.values:
        for axis in value.axes if value is not table else table.axes[:1]:
            call.freeze(axis, "is looked up by data")
    call.role(table.axes[1], "produced")
    first, *rest = call.shapes
    return [Value(first, (None, table.axes[1]), (False, table.zero[1])), *map(plain, rest)]


@rule("aten.index")
def index(call: Call) -> Value:
    """`tensor[i, j]`: where the indexed axes are neighbours, the result stands in their place."""
    value, given = call["self"], call["indices"]
    for place, one in enumerate(given):
        if isinstance(one, Value):
            call.freeze(value.axes[place], "is looked up by data")
            for axis in one.axes:
                call.freeze(axis, "holds indices")
    places = [place for place, one in enumerate(given) if isinstance(one, Value)]
    ranks = [len(given[place].shape) for place in places]
    together = places[-1] - places[0] + 1 == len(places)
    left = [place for place in range(len(value.shape)) if place not in places]
    if len(call.shape) != len(left) + max(ranks):
        return call.decline("selects by a mask")[0]
    at = places[0] if together else 0
    axes: list[Axis] = [value.axes[place] for place in left]
    zero = [value.zero[place] for place in left]
    axes[at:at] = [None] * max(ranks)
    zero[at:at] = [False] * max(ranks)
    return Value(call.shape, tuple(axes), tuple(zero))
