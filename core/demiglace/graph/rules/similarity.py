"""Distances and similarities: terms of what is removed vanish where both sides are zero there."""

from __future__ import annotations

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


def compare(call: Call, left: Value, right: Value, dim: int) -> None:
    """Tie the axes over which two tensors are compared; freeze them unless both become zero."""
    tied = call.unite(left.axes[dim], right.axes[dim])
    if not (left.zero[dim] and right.zero[dim]):
        call.freeze(tied, "compares along it, and what is removed is not zero there")


@rule("aten.cosine_similarity")
def cosine(call: Call) -> Value:
    """Compute x y / (|x| |y|) along `dim`; the other axes are broadcast."""
    left, right = call["x1"], call["x2"]
    if left.shape != right.shape:
        return call.decline("compares tensors of two shapes")[0]
    dim = call["dim"] % len(left.shape)
    compare(call, left, right, dim)
    axes: list[Axis] = [
        call.unite(one, other)
        for at, (one, other) in enumerate(zip(left.axes, right.axes, strict=True))
        if at != dim
    ]
    return Value(call.shape, tuple(axes), (False,) * len(axes))


@rule("aten.cdist")
def distances(call: Call) -> Value:
    """|x_i - y_j| of all rows of two matrices, batched over the first axes."""
    left, right = call["x1"], call["x2"]
    compare(call, left, right, -1)
    for value in (left, right):
        for axis in value.axes[:-2]:
            call.freeze(axis, "is batched over it")
    lead = len(call.shape) - 2
    return Value(call.shape, (*(None,) * lead, left.axes[-2], right.axes[-2]), (False,) * (lead + 2))
