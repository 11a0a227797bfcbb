"""Operators that reduce or mix whole axes."""

from __future__ import annotations

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


@rule("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax")
def along(call: Call) -> Value:
    """Every result along `dim` depends on all of that axis."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    call.freeze(value.axes[dim], "mixes all of it")
    axes = tuple(None if place == dim else axis for place, axis in enumerate(value.axes))
    return Value(call.shape, axes, (False,) * len(axes))


@rule(
    "aten.cumsum",
    "aten.cumprod",
    "aten.cummax",
    "aten.cummin",
    "aten.logcumsumexp",
    "aten.sort",
    "aten.argsort",
    "aten.topk",
)
def ordered(call: Call) -> list[Value]:
    """Results along `dim` depend on what comes before, or on the order of all; zeros stay where they are."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    call.freeze(value.axes[dim], "mixes all of it")
    axes = tuple(None if place == dim else axis for place, axis in enumerate(value.axes))
    zero = tuple(
        flag and place != dim and call.op != "aten.logcumsumexp" for place, flag in enumerate(value.zero)
    )
    # Where every number is zero, which index comes first is not told.
    return [Value(shape, axes, (False,) * len(axes) if at else zero) for at, shape in enumerate(call.shapes)]


@rule(
    "aten.sum",
    "aten.mean",
    "aten.amax",
    "aten.amin",
    "aten.max",
    "aten.min",
    "aten.var",
    "aten.std",
    "aten.norm",
    "aten.linalg_vector_norm",
    "aten.any",
    "aten.all",
    "aten.argmax",
    "aten.argmin",
    "aten.prod",
    "aten.logsumexp",
    "aten.var_mean",
    "aten.std_mean",
    "aten.median",
    "aten.mode",
    "aten.kthvalue",
)
def reduced(call: Call) -> list[Value]:
    """Axes that a reduction runs over stay, but for a sum of what is zero where it is removed."""
    value = call["self"] if "self" in call.bound else call["input"]
    if len(call.values) > 1:
        return call.decline("compares tensors")
    rank = len(value.shape)
    given = call.bound.get("dim")
    dims = {dim % rank for dim in ([given] if isinstance(given, int) else given or range(rank))}
    keeps = bool(call.bound.get("keepdim"))
    adds = call.op in {"aten.sum", "aten.linalg_vector_norm"}
    axes: list[Axis] = []
    zero: list[bool] = []
    for place, axis in enumerate(value.axes):
        if place not in dims:
            axes.append(axis)
            zero.append(value.zero[place] and call.op != "aten.logsumexp")
            continue
        if not (adds and value.zero[place]):
            call.freeze(axis, "reduces over it")
        if keeps:
            axes.append(None)
            zero.append(False)
    return [Value(shape, tuple(axes), tuple(zero)) for shape in call.shapes]
