"""Norms: their vectors are tied to what they scale; some take mean and variance over an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import Kept, count, resize, rule
from demiglace.graph.trace import Call


@rule("aten.batch_norm", "aten.instance_norm")
def per_channel(call: Call) -> Value:
    """Statistics per channel, stored or taken over batch and space."""
    given = call["input"]
    axis, vectors = given.axes[1], ["weight", "bias", "running_mean", "running_var"]
    if given.shape[1] > 1:
        for name in vectors:
            if call[name] is not None:
                axis = call.unite(axis, call[name].axes[0])
    for place, other in enumerate(given.axes):
        if place != 1 and other is not None:
            call.normalizes(other)
    affine = call["weight"] is not None and call["bias"] is not None
    zero = [False] * len(given.axes)
    zero[1] = affine or (call["running_mean"] is not None and given.zero[1])
    axes = (given.axes[0], axis, *given.axes[2:])
    return Value(call.shape, axes, tuple(zero))


@rule("aten.layer_norm", "aten.rms_norm")
def over_last(call: Call) -> Value:
    """Mean and variance over the last axes; a cut there changes what they are taken over."""
    given, weight = call["input"], call["weight"]
    bias = call.bound.get("bias")
    first = len(given.shape) - len(call["normalized_shape"])
    axes: list[Axis] = list(given.axes)
    zero = [False] * first + list(given.zero[first:])
    for place in range(first, len(axes)):
        for vector in (weight, bias):
            if vector is not None and given.shape[place] > 1:
                axes[place] = call.unite(axes[place], vector.axes[place - first])
        if axes[place] is not None:
            call.normalizes(axes[place])
            zero[place] = given.zero[place] or weight is not None
    return Value(call.shape, tuple(axes), tuple(zero))


@rule("aten.group_norm")
def by_group(call: Call) -> Value:
    """Mean and variance over each group: whole groups go, or for a single group its channels."""
    given, groups = call["input"], call["num_groups"]
    axis = given.axes[1]
    for vector in (call["weight"], call["bias"]):
        if vector is not None:
            axis = call.unite(axis, vector.axes[0])
    if axis is not None and groups > 1:
        call.tie(axis.view(groups, -1))
    elif axis is not None:
        call.normalizes(axis)
    for other in given.axes[2:]:
        call.freeze(other, "takes mean and variance over it")
    zero = [False] * len(given.axes)
    zero[1] = given.zero[1] or (call["weight"] is not None and call["bias"] is not None)
    return Value(call.shape, (given.axes[0], axis, *(None for _ in given.axes[2:])), tuple(zero))


@resize("aten.layer_norm", "aten.rms_norm")
def _normalized_shape(call: Call, kept: Kept) -> Mapping[str, Any]:
    given, last = call["input"], len(call["normalized_shape"])
    sizes = zip(given.axes[-last:], given.shape[-last:], strict=True)
    return {"normalized_shape": [count(kept(axis), size) for axis, size in sizes]}


@resize("aten.group_norm")
def _num_groups(call: Call, kept: Kept) -> Mapping[str, Any]:
    groups, channels = call["num_groups"], call["input"].shape[1]
    left = count(kept(call["input"].axes[1]), channels)
    return {} if groups == 1 else {"num_groups": left * groups // channels}
