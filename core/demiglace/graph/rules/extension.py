"""Making axes longer: repeated from one index, or padded at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.movement import placed
from demiglace.graph.rules.registry import Kept, count, resize, rule
from demiglace.graph.trace import Call


@rule("aten.expand", "aten.expand_as", "aten.broadcast_to")
def expanded(call: Call) -> Value:
    """Repeat axes of size one; a repeated axis has the size of whatever it will meet."""
    value = call["self"]
    lead = len(call.shape) - len(value.shape)
    axes: list[Axis] = [None] * lead + list(value.axes)
    zero = [False] * lead + list(value.zero)
    return _repeated(call, value, axes, zero)


@rule("aten.repeat", "aten.tile")
def tiled(call: Call) -> Value:
    """Put copies of a tensor one after the other; what is repeated from one index is as in `expanded`."""
    value = call["self"]
    result = placed(call, value, lambda labels: call.run({"self": labels}))
    return _repeated(call, value, list(result.axes), list(result.zero))


def _repeated(call: Call, value: Value, axes: list[Axis], zero: list[bool]) -> Value:
    lead = len(axes) - len(value.shape)
    for dim in range(len(axes)):
        repeated = dim < lead or value.shape[dim - lead] == 1
        if repeated and call.shape[dim] > 1 and call.sized(dim):
            axes[dim], zero[dim] = call.tracer.labels.weak(call.shape[dim]), False
    return Value(call.shape, tuple(axes), tuple(zero))


@resize("aten.repeat", "aten.tile")
def _repeats(call: Call, kept: Kept) -> Mapping[str, Any]:
    name = "repeats" if "repeats" in call.bound else "dims"
    repeats, shape, result = list(call[name]), call["self"].shape, call.result
    assert isinstance(result, Value)  # noqa: S101
    for back in range(1, len(repeats) + 1):
        if back > len(shape) or shape[-back] == 1:
            repeats[-back] = count(kept(result.axes[-back]), result.shape[-back])
    return {name: repeats}


@rule(
    "aten.pad",
    "aten.constant_pad_nd",
    "aten.reflection_pad1d",
    "aten.reflection_pad2d",
    "aten.replication_pad1d",
    "aten.replication_pad2d",
    "aten.replication_pad3d",
)
def padded(call: Call) -> Value:
    """Add indices that stay at the ends of the last axes."""
    value = call["self"]
    sizes: Sequence[int] = call["pad"] if "pad" in call.bound else call["padding"]
    fills_zero = not call.bound.get("value") and call.bound.get("mode", "constant") == "constant"
    axes, zero = list(value.axes), list(value.zero)
    constant = call.op == "aten.constant_pad_nd" or call.bound.get("mode") == "constant"
    for place in range(len(sizes) // 2):
        dim = len(axes) - 1 - place
        before, after = sizes[2 * place], sizes[2 * place + 1]
        axis = axes[dim]
        if axis is None or before == after == 0:
            continue
        if not constant:
            call.freeze(axis, "mirrors it")
            axes[dim] = None
            continue
        axes[dim] = torch.nn.functional.pad(axis, (before, after))
        if call.shape[dim] == 1:
            call.freeze(axes[dim], "takes one index of it")
            axes[dim] = None
    if constant and not fills_zero and any(sizes):
        zero = [False] * len(zero)
    return Value(call.shape, tuple(axes), tuple(zero))


@resize("aten.pad", "aten.constant_pad_nd")
def _pad(call: Call, kept: Kept) -> Mapping[str, Any]:
    """A negative size crops: it counts indices, of which some may go."""
    value, pad = call["self"], list(call["pad"])
    for place in range(len(pad) // 2):
        stays = kept(value.axes[-1 - place])
        before, after = pad[2 * place : 2 * place + 2]
        if stays is not None and before < 0:
            pad[2 * place] = -int(stays[:-before].sum())
        if stays is not None and after < 0:
            pad[2 * place + 1] = -int(stays[after:].sum())
    return {} if pad == list(call["pad"]) else {"pad": pad}
