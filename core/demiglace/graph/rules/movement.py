"""Operators that only move data: they are run on the labels themselves, so that no index can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demiglace.graph.labels import Axis, Value, plain
from demiglace.graph.rules.registry import Kept, count, resize, resized_shape, rule
from demiglace.graph.trace import Call, Split


@rule(
    "aten.view",
    "aten.reshape",
    "aten._unsafe_view",
    "aten.view_as",
    "aten.reshape_as",
    "aten.flatten",
    "aten.unflatten",
    "aten.permute",
    "aten.transpose",
    "aten.transpose_",
    "aten.swapaxes",
    "aten.swapdims",
    "aten.movedim",
    "aten.moveaxis",
    "aten.t",
    "aten.numpy_T",
    "aten.mT",
    "aten.adjoint",
    "aten.squeeze",
    "aten.squeeze_",
    "aten.unsqueeze",
    "aten.unsqueeze_",
    "aten.pixel_shuffle",
    "aten.pixel_unshuffle",
    "aten.channel_shuffle",
    "aten.flip",
    "aten.rot90",
    "aten.roll",
    "aten.unfold",
    "aten.diagonal",
    "aten.tile",
    "aten.repeat",
    "aten.repeat_interleave",
)
def moved(call: Call) -> Value:
    """Run the operator on each axis's labels, spread over the whole tensor."""
    (name, value), *_ = [(name, one) for name, one in call.bound.items() if isinstance(one, Value)]
    if any(isinstance(one, Value) for key, one in call.bound.items() if key not in {name, "other"}):
        return call.decline("takes an index that depends on data")[0]
    other = {
        key: torch.empty(one.shape, device="meta")
        for key, one in call.bound.items()
        if key == "other" and isinstance(one, Value)
    }
    return placed(call, value, lambda labels: call.run({name: labels, **other}))


def placed(call: Call, value: Value, run: Callable[[Tensor], Tensor]) -> Value:
    """The labels of a result whose elements are those of `value`, put elsewhere by `run`."""
    shape = call.shape
    axes: list[Axis] = [None] * len(shape)
    zero = [False] * len(shape)
    passed_over: dict[int, Tensor] = {}
    for dim, axis in enumerate(value.axes):
        if axis is None:
            continue
        where = run(_spread(axis, dim, value.shape))
        varying = [out for out in range(len(shape)) if _varies(where, out)]
        for out in set(range(len(shape))) - set(varying):
            where = where.narrow(out, 0, 1)
        if not varying:
            call.freeze(where.reshape(-1)[:1], "takes one index of it")
            continue
        out = varying[0] if len(varying) == 1 else _choose(call, dim, varying, where, passed_over)
        labels = where.movedim(out, 0).reshape(shape[out], -1)[:, 0].contiguous()
        axes[out], zero[out] = _merge(call, axes[out], labels), value.zero[dim]
    for out, labels in passed_over.items():
        if axes[out] is None:
            axes[out] = labels
    return Value(shape, tuple(axes), tuple(zero))


def _spread(axis: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """A tensor of `shape` in which each element is its label along `dim`."""
    view = [1] * len(shape)
    view[dim] = len(axis)
    return axis.view(view).expand(tuple(shape)).contiguous()


def _varies(where: Tensor, dim: int) -> bool:
    return where.shape[dim] > 1 and bool((where != where.narrow(dim, 0, 1)).any())


def _choose(call: Call, dim: int, varying: list[int], where: Tensor, passed_over: dict[int, Tensor]) -> int:
    """An axis was split: one of the axes it became stays to be cut, the rest is united."""
    choice, tracer = (call.name, dim), call.tracer
    kept = tracer.choices.get(choice, varying[-1])
    lines = where.movedim(kept, 0).reshape(where.shape[kept], -1)
    tracer.labels.unite(lines[:, :1].expand_as(lines), lines)
    others = {out: tracer.labels.inert(where.shape[out]) for out in varying if out != kept}
    tracer.splits[choice] = Split(kept, lines[:, 0], others)
    passed_over.update(others)
    return kept


def _merge(call: Call, earlier: Axis, later: Tensor) -> Tensor:
    """Two axes became one, which is no vector of independent indices: the larger one stays to be cut."""
    if earlier is None:
        return later
    labels = call.tracer.labels
    first, second = ((not labels.are_weak(one), len(one.unique())) for one in (earlier, later))
    winner, loser = (earlier, later) if first >= second else (later, earlier)
    call.freeze(loser, "merges it with another cut axis")
    return winner


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
        blocks = axis[:whole].view(-1, step)
        call.tracer.labels.unite(blocks[:, :1].expand_as(blocks), blocks)


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
        results.append(Value(shape, tuple(axes), tuple(zero)))
    return results


@rule("aten.cat", "aten.concat", "aten.concatenate")
def joined(call: Call) -> Value:
    """Put tensors one after the other along `dim`; all other axes are tied."""
    from demiglace.graph.trace import fixed

    values = [one for one in call["tensors"] if one.shape != (0,)]
    dim = call["dim"] % len(call.shape)
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
            vectors = [fixed(one.shape[dim]) if one.axes[dim] is None else one.axes[dim] for one in values]
            axes.append(torch.cat(vectors))
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


@rule("aten.expand", "aten.expand_as", "aten.broadcast_to")
def expanded(call: Call) -> Value:
    """Repeat axes of size one; a repeated axis has the size of whatever it will meet."""
    value = call["self"]
    lead = len(call.shape) - len(value.shape)
    axes: list[Axis] = [None] * lead + list(value.axes)
    zero = [False] * lead + list(value.zero)
    for dim in range(1, len(axes)):
        repeated = dim < lead or value.shape[dim - lead] == 1
        if repeated and call.shape[dim] > 1:
            axes[dim], zero[dim] = call.tracer.labels.weak(call.shape[dim]), False
    return Value(call.shape, tuple(axes), tuple(zero))


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
        else:
            axes[dim] = torch.nn.functional.pad(axis, (before, after))
    if constant and not fills_zero and any(sizes):
        zero = [False] * len(zero)
    return Value(call.shape, tuple(axes), tuple(zero))


@resize("aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand", "aten.broadcast_to")
def _shape(call: Call, kept: Kept) -> Mapping[str, Any]:
    name = "shape" if "shape" in call.bound else "size"
    return {name: resized_shape(call, kept)}


@resize("aten.unflatten")
def _unflatten(call: Call, kept: Kept) -> Mapping[str, Any]:
    dim = call["dim"] % len(call["self"].shape)
    shape = resized_shape(call, kept)
    return {"sizes": shape[dim : dim + len(call["sizes"])]}


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


@resize("aten.roll")
def _roll(call: Call, kept: Kept) -> Mapping[str, Any]:
    value = call["self"]
    shifts = []
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        stays = kept(value.axes[dim % len(value.shape)])
        shifts.append(shift if stays is None else int(stays[len(stays) - shift % len(stays) :].sum()))
    return {"shifts": shifts}


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
    results = call.result if isinstance(call.result, list | tuple) else [call.result]
    sizes = [count(kept(one.axes[dim]), one.shape[dim]) for one in results]
    return {"split_sizes": sizes}


__all__ = ["moved", "plain"]
