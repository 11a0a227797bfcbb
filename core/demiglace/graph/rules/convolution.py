"""Convolutions: channels are tied to the weight, groups tie them among themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import Kept, count, resize, rule
from demiglace.graph.trace import Call


@rule(
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.convolution",
    "aten.conv_transpose1d",
    "aten.conv_transpose2d",
    "aten.conv_transpose3d",
)
def convolution(call: Call) -> Value:
    """A convolution of any dimension, groups and direction."""
    given, weight, bias = call["input"], call["weight"], call["bias"]
    spatial = len(weight.shape) - 2
    channel = len(given.shape) - spatial - 1
    for axis in given.axes[channel + 1 :]:
        call.freeze(axis, "slides over it")
    for axis in weight.axes[2:]:
        call.freeze(axis, "is its kernel")
    tie = _transposed if _is_transposed(call) else _direct
    out = tie(call, given.axes[channel], weight, given.shape[channel], call.shape[channel])
    if bias is not None:
        out = call.unite(out, bias.axes[0]) if call.shape[channel] > 1 else None
    axes = (*given.axes[:channel], out, *(None for _ in range(spatial)))
    zero = [False] * len(axes)
    zero[channel] = True
    return Value(call.shape, axes, tuple(zero))


def _is_transposed(call: Call) -> bool:
    return "transpose" in call.op or bool(call.bound.get("transposed"))


def _direct(call: Call, axis: Axis, weight: Value, channels_in: int, channels_out: int) -> Axis:
    """Weight of shape [out, in / groups, ...]."""
    groups = call["groups"]
    out, inner = weight.axes[0], weight.axes[1]
    call.role(out, "produced")
    call.role(inner, "consumed")
    if groups == 1:
        call.unite(axis, inner)
        return out
    if channels_in == groups or channels_out == groups:
        call.freeze(inner, "is cut by whole groups")
        tied = _by_group(call, axis, channels_in, groups)
        mine = _by_group(call, out, channels_out, groups)
        call.unite(tied, mine)
        return out
    call.unite(_within_group(call, axis, groups), inner)
    _within_group(call, out, groups)
    return out


def _transposed(call: Call, axis: Axis, weight: Value, channels_in: int, channels_out: int) -> Axis:
    """Weight of shape [in, out / groups, ...]."""
    groups = call["groups"]
    axis = call.unite(axis, weight.axes[0])
    call.role(weight.axes[0], "consumed")
    call.role(weight.axes[1], "produced")
    if groups == 1:
        return weight.axes[1]
    if channels_in == groups or channels_out == groups:
        call.freeze(weight.axes[1], "is cut by whole groups")
        tied = _by_group(call, axis, channels_in, groups)
        return None if tied is None else torch.repeat_interleave(tied, channels_out // groups)
    _within_group(call, axis, groups)
    return None if weight.axes[1] is None else weight.axes[1].repeat(groups)


def _by_group(call: Call, axis: Axis, channels: int, groups: int) -> Axis:
    """All channels of a group are one; a label for each group."""
    if axis is None:
        return None
    return call.tie(axis.view(groups, channels // groups))


def _within_group(call: Call, axis: Axis, groups: int) -> Axis:
    """Every group loses the same channels; a label for each channel of a group."""
    return None if axis is None else call.tie(axis.view(groups, -1).T)


@resize(
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.convolution",
    "aten.conv_transpose1d",
    "aten.conv_transpose2d",
    "aten.conv_transpose3d",
)
def _groups(call: Call, kept: Kept) -> Mapping[str, Any]:
    if call["groups"] == 1:
        return {}
    weight = call["weight"]
    channel = len(call.shape) - (len(weight.shape) - 2) - 1
    result = call.result
    assert isinstance(result, Value)  # noqa: S101
    whole = result if _is_transposed(call) else call["input"]
    channels = count(kept(whole.axes[channel]), whole.shape[channel])
    return {"groups": channels // count(kept(weight.axes[1]), weight.shape[1])}
