"""Operators that reduce or mix whole axes."""

from __future__ import annotations

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


@rule("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax", "aten.cumsum", "aten.glu")
def along(call: Call) -> Value:
    """Every result along `dim` depends on all of that axis."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    call.freeze(value.axes[dim], "mixes all of it")
    axes = tuple(None if place == dim else axis for place, axis in enumerate(value.axes))
    return Value(call.shape, axes, (False,) * len(axes))


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


_SPATIAL = {"1d": 1, "2d": 2, "3d": 3, "linear1d": 1, "nearest1d": 1, "_nearest_exact1d": 1}


@rule(
    *(
        f"aten.{kind}_pool{dims}d"
        for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "_adaptive_avg", "lp")
        for dims in (1, 2, 3)
    ),
    *(f"aten.max_pool{dims}d_with_indices" for dims in (1, 2, 3)),
    "aten.upsample_nearest1d",
    "aten.upsample_nearest2d",
    "aten.upsample_nearest3d",
    "aten.upsample_linear1d",
    "aten._upsample_nearest_exact2d",
    "aten.upsample_bilinear2d",
    "aten.upsample_bicubic2d",
    "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa",
    "aten.upsample_trilinear3d",
)
def spatial(call: Call) -> list[Value]:
    """Windows over the last axes; the others are independent."""
    value = call.values[0]
    count = next(int(digit) for digit in call.op if digit in "123")
    lead = len(value.shape) - count
    for axis in value.axes[lead:]:
        call.freeze(axis, "slides over it")
    axes = (*value.axes[:lead], *(None for _ in range(count)))
    zero = (*value.zero[:lead], *(False for _ in range(count)))
    return [Value(shape, axes, zero) for shape in call.shapes]
