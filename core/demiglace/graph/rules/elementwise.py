"""Operators that work element by element: broadcast axes are tied index by index."""

from __future__ import annotations

from typing import Any

import torch

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


@rule(
    "pointwise",
    "aten.hardswish",
    "aten.hardswish_",
    "aten.dropout",
    "aten.dropout_",
    "aten.feature_dropout",
    "aten.feature_dropout_",
    "aten.alpha_dropout",
    "aten.divide",
    "aten.divide_",
    "aten.multiply",
    "aten.subtract",
    "aten.floor_divide",
    "aten.log_sigmoid",
    "aten.bernoulli",
    "aten.bernoulli_",
    "aten.zeros_like",
    "aten.ones_like",
    "aten.empty_like",
    "aten.rand_like",
    "aten.__and__",
    "aten.__or__",
    "aten.copy_",
    "aten.fill",
    "aten.fill_",
    "aten.zero_",
    "aten.complex",
    "aten.polar",
    "aten.real",
    "aten.imag",
)
def elementwise(call: Call) -> Value:
    """Unite the inputs axis by axis, aligned at the last; sizes of one are broadcast."""
    shape = call.shape
    axes: list[Axis] = []
    zero: list[bool] = []
    for back in range(len(shape), 0, -1):
        axes.append(_axis(call, back))
        zero.append(axes[-1] is not None and stays_zero(call, back))
    return Value(shape, tuple(axes), tuple(zero))


def _axis(call: Call, back: int) -> Axis:
    present = [
        value.axes[-back] for value in call.values if len(value.shape) >= back and value.shape[-back] != 1
    ]
    if not present:
        return None
    first, *others = present
    for other in others:
        first = call.unite(first, other)
    return first


def stays_zero(call: Call, back: int) -> bool:
    """Whether the operator gives zero where its inputs' removed slices are zero, found by running it."""
    awkward = iter(0.7310585 * (-1.6180339) ** power for power in range(1, 100))

    def probe(value: Any) -> Any:
        if not isinstance(value, Value):
            return [probe(one) for one in value] if isinstance(value, list | tuple) else value
        is_zero = len(value.shape) >= back and value.axes[-back] is not None and value.zero[-back]
        # No two of these numbers cancel each other by chance.
        return torch.zeros(2) if is_zero else torch.tensor([next(awkward), next(awkward)])

    try:
        out = call.run({name: probe(given) for name, given in call.bound.items()})
    except (RuntimeError, TypeError):
        return False
    return isinstance(out, torch.Tensor) and bool((out == 0).all())


@rule("aten.broadcast_tensors")
def broadcast(call: Call) -> list[Value]:
    """Every tensor in the shape of all; a repeated axis has the size of whatever it meets."""
    shape = call.shapes[0]
    axes = tuple(_axis(call, back) for back in range(len(shape), 0, -1))
    return [Value(shape, axes, _zeros_of(one, len(shape))) for one in call.values]


def _zeros_of(value: Value, rank: int) -> tuple[bool, ...]:
    """Which axes of a value are zero once it is broadcast to `rank` dimensions."""
    own = (zero and size > 1 for zero, size in zip(value.zero, value.shape, strict=True))
    return (*(False,) * (rank - len(value.shape)), *own)


@rule(
    "aten.to",
    "aten._to_copy",
    "aten.type_as",
    "aten.detach",
    "aten.detach_",
    "aten.alias",
    "aten.lift_fresh_copy",
    "aten.contiguous",
)
def same(call: Call) -> Value:
    """The first input, perhaps of another type or layout."""
    return call.values[0]


@rule("aten.prelu")
def prelu(call: Call) -> Value:
    """One slope per channel, or one for all; zero stays zero."""
    given, slope = call["self"], call["weight"]
    axes = list(given.axes)
    if len(axes) > 1 and slope.axes and slope.axes[0] is not None:
        axes[1] = call.unite(axes[1], slope.axes[0])
    return Value(given.shape, tuple(axes), given.zero)
