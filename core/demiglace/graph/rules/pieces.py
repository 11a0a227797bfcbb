"""Taking pieces of an axis, and putting tensors together along one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import Kept, count, resize, rule
from demiglace.graph.trace import Call, fixed


@rule("aten.slice", "aten.narrow", "aten.select", "aten.index_select")
def along(call: Call) -> Value:
    """Take indices of one axis, named `dim`."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    axis = value.axes[dim]
    if any(isinstance(one, Value) for name, one in call.bound.items() if name != "self"):
        return _by_data(call, value, dim)
    drops = call.op == "aten.select"
    axes, zero = list(value.axes), list(value.zero)
    if axis is not None:
        _tie_steps(call, axis)
        axes[dim] = call.run({"self": axis, "dim": 0})
        if not drops and call.shape[dim] != len(axis):
            call.piece(axes[dim])
    if drops:
        call.freeze(axes[dim].reshape(1) if axis is not None else None, "takes one index of it")
        del axes[dim], zero[dim]
    elif axis is not None and call.shape[dim] == 1:
        call.freeze(axes[dim], "takes one index of it")
        axes[dim] = None
    return Value(call.shape, tuple(axes), tuple(zero))


def _by_data(call: Call, value: Value, dim: int) -> Value:
    call.freeze(value.axes[dim], "is indexed by data")
    for one in call.values[1:]:
        for axis in one.axes:
            call.freeze(axis, "holds indices")
    axes = tuple(None if place == dim else axis for place, axis in enumerate(value.axes))
    return Value(call.shape, axes, value.zero)


def _tie_steps(call: Call, axis: Tensor) -> None:
    """Under a step of two, indices go in pairs: then the same slice still takes the right ones."""
    step = call.bound.get("step") or 1
    whole = len(axis) // step * step
    if step > 1 and whole:
        call.tie(axis[:whole].view(-1, step))


@rule(
    "aten.chunk",
    "aten.split",
    "aten.split_with_sizes",
    "aten.tensor_split",
    "aten.unbind",
    "aten.unsafe_chunk",
    "aten.unsafe_split",
)
def parts(call: Call) -> list[Value]:
    """Cut a tensor into pieces along `dim`."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    axis = value.axes[dim]
    drops = call.op == "aten.unbind"
    if drops:
        call.freeze(axis, "takes it apart index by index")
    pieces: Sequence[Axis] = [None] * len(call.shapes)
    if axis is not None and not drops:
        pieces = call.run({"self": axis, "dim": 0})
    results = []
    for shape, piece in zip(call.shapes, pieces, strict=True):
        axes, zero = list(value.axes), list(value.zero)
        if drops:
            del axes[dim], zero[dim]
        elif piece is not None and len(piece) == 1:
            call.freeze(piece, "takes one index of it")
            axes[dim] = None
        else:
            axes[dim] = piece
            call.piece(piece)
        results.append(Value(shape, tuple(axes), tuple(zero)))
    return results


@rule("aten.glu")
def gated(call: Call) -> Value:
    """One half of an axis times the sigmoid of the other."""
    value = call["self"]
    dim = call["dim"] % len(value.shape)
    axes = list(value.axes)
    if axes[dim] is not None:
        axes[dim] = call.unite(*axes[dim].chunk(2))
    return Value(call.shape, tuple(axes), value.zero)


@rule("aten.cat", "aten.concat", "aten.concatenate")
def joined(call: Call) -> Value:
    """Put tensors one after the other along `dim`; all other axes are tied."""
    values = [one for one in call["tensors"] if one.shape != (0,)]
    return _along(call, values, call["dim"] % len(call.shape))


@rule("aten.hstack", "aten.vstack", "aten.dstack", "aten.column_stack")
def stacked_along(call: Call) -> Value:
    """Put tensors together along the first, second or third dimension."""
    values: list[Value] = call["tensors"]
    dim = {"aten.vstack": 0, "aten.hstack": 1, "aten.column_stack": 1, "aten.dstack": 2}[call.op]
    if any(len(one.shape) != len(call.shape) for one in values):
        return call.decline("gives tensors another dimension")[0]
    return _along(call, values, dim)


def _along(call: Call, values: Sequence[Value], dim: int) -> Value:
    axes: list[Axis] = []
    zero = [
        all(one.zero[place] or one.axes[place] is None for one in values) for place in range(len(call.shape))
    ]
    for place in range(len(call.shape)):
        given = [one.axes[place] for one in values]
        if place != dim:
            axes.append(_tied(call, given))
        elif all(axis is None for axis in given):
            axes.append(None)
        else:
            vectors = zip(given, values, strict=True)
            axes.append(torch.cat([fixed(one.shape[dim]) if axis is None else axis for axis, one in vectors]))
    return Value(call.shape, tuple(axes), tuple(zero))


@rule("aten.stack")
def stacked(call: Call) -> Value:
    """A new axis over tensors whose axes are tied."""
    values = call["tensors"]
    dim = call["dim"] % len(call.shape)
    axes = [_tied(call, [one.axes[place] for one in values]) for place in range(len(values[0].shape))]
    zero = [all(one.zero[place] for one in values) for place in range(len(axes))]
    axes.insert(dim, None)
    zero.insert(dim, False)
    return Value(call.shape, tuple(axes), tuple(zero))


def _tied(call: Call, axes: list[Axis]) -> Axis:
    first, *others = axes
    for other in others:
        first = call.unite(first, other)
    return first


def _position(index: int, stays: Tensor) -> int:
    """Where a cut before `index` is after the cut."""
    size = len(stays)
    index = max(0, index + size) if index < 0 else min(index, size)
    return int(stays[:index].sum())


@resize("aten.slice")
def _slice(call: Call, kept: Kept) -> Mapping[str, Any]:
    value = call["self"]
    stays = kept(value.axes[call["dim"] % len(value.shape)])
    if stays is None:
        return {}
    step, size = call["step"], len(stays)
    start, end = call["start"] or 0, size if call["end"] is None else call["end"]
    start = max(0, start + size) if start < 0 else start
    offset = start % step
    return {"start": _position(start - offset, stays) + offset, "end": _position(end, stays)}


@resize("aten.narrow")
def _narrow(call: Call, kept: Kept) -> Mapping[str, Any]:
    value = call["self"]
    stays = kept(value.axes[call["dim"] % len(value.shape)])
    if stays is None:
        return {}
    start, end = call["start"] % len(stays), call["start"] % len(stays) + call["length"]
    return {"start": _position(start, stays), "length": int(stays[start:end].sum())}


@resize("aten.select")
def _select(call: Call, kept: Kept) -> Mapping[str, Any]:
    value = call["self"]
    stays = kept(value.axes[call["dim"] % len(value.shape)])
    return {} if stays is None else {"index": _position(call["index"] % len(stays), stays)}


@resize(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.unsafe_chunk",
    "aten.unsafe_split",
    "aten.tensor_split",
)
def _split(call: Call, kept: Kept) -> Mapping[str, Any]:
    dim = call["dim"] % len(call["self"].shape)
    results = (
        [one for one in call.result if isinstance(one, Value)] if isinstance(call.result, Sequence) else []
    )
    sizes = [count(kept(one.axes[dim]), one.shape[dim]) for one in results]
    return {"split_sizes": sizes}
