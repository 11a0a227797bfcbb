"""Pooling, resampling and sliding windows: they work over the last axes, channel by channel."""

from __future__ import annotations

from math import prod

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


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
    "aten._upsample_nearest_exact1d",
    "aten._upsample_nearest_exact2d",
    "aten._upsample_nearest_exact3d",
    "aten.upsample_bilinear2d",
    "aten.upsample_bicubic2d",
    "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa",
    "aten.upsample_trilinear3d",
)
def spatial(call: Call) -> list[Value]:
    """Windows over the last axes; the others are independent."""
    count = next(int(digit) for digit in call.op if digit in "123")
    return _over_last(call, call.values[0], count)


@rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpooled(call: Call) -> list[Value]:
    """Each value goes where its index says, within its own channel."""
    value, indices = call["self"], call["indices"]
    count = 3 if "3d" in call.op else 2
    for one, other in zip(value.axes[:-count], indices.axes[:-count], strict=True):
        call.unite(one, other)
    return _over_last(call, value, count)


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def sampled(call: Call) -> list[Value]:
    """Values of every channel at the places of a grid."""
    value, grid = call["input"], call["grid"]
    for axis in grid.axes:
        call.freeze(axis, "holds places")
    return _over_last(call, value, len(value.shape) - 2)


def _over_last(call: Call, value: Value, count: int) -> list[Value]:
    lead = len(value.shape) - count
    for axis in value.axes[lead:]:
        call.freeze(axis, "slides over it")
    axes: tuple[Axis, ...] = (*value.axes[:lead], *(None for _ in range(count)))
    zero = (*value.zero[:lead], *(False for _ in range(count)))
    return [Value(shape, axes, zero) for shape in call.shapes]


@rule("aten.im2col")
def unfolded(call: Call) -> Value:
    """Windows of an image as columns: each channel's window lies in one piece."""
    value = call["self"]
    for axis in value.axes[-2:]:
        call.freeze(axis, "slides over it")
    *lead, channels = value.axes[:-2]
    if channels is not None:
        channels = channels.repeat_interleave(prod(call["kernel_size"]))
    return Value(call.shape, (*lead, channels, None), (*value.zero[:-2], False))


@rule("aten.col2im")
def folded(call: Call) -> Value:
    """Columns added up to an image: a channel goes with all of its window."""
    value = call["self"]
    call.freeze(value.axes[-1], "slides over it")
    *lead, channels = value.axes[:-1]
    if channels is not None:
        channels = call.tie(channels.view(-1, prod(call["kernel_size"])))
    return Value(call.shape, (*lead, channels, None, None), (*value.zero[:-1], False, False))
