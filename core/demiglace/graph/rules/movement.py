"""Operators that only move data: they are run on the labels themselves, so that no index can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demiglace.graph.labels import FIXED, Axis, Value
from demiglace.graph.rules.registry import Kept, resize, resized_shape, rule
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
    "aten.flip",
    "aten.rot90",
    "aten.roll",
    "aten.unfold",
    "aten.repeat_interleave",
)
def moved(call: Call) -> Value:
    """Run the operator on each axis's labels, spread over the whole tensor."""
    if call.op == "aten.view" and "dtype" in call.bound:
        return call.decline("reads the bits as another type")[0]
    (name, value), *_ = [(name, one) for name, one in call.bound.items() if isinstance(one, Value)]
    if any(isinstance(one, Value) for key, one in call.bound.items() if key not in {name, "other"}):
        return call.decline("takes an index that depends on data")[0]
    other = {
        key: torch.empty(one.shape, device="meta")
        for key, one in call.bound.items()
        if key == "other" and isinstance(one, Value)
    }
    return placed(call, value, lambda labels: call.run({name: labels, **other}))


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def shuffled(call: Call) -> Value:
    """Channels of all groups change places: every group loses the same ones, or the places differ."""
    value: Value = call["self"]
    axis = value.axes[1]
    if axis is not None:
        call.tie(axis.view(call["groups"], -1).T)
    return placed(call, value, lambda labels: call.run({"self": labels}))


def placed(call: Call, value: Value, run: Callable[[Tensor], Tensor]) -> Value:
    """The labels of a result whose elements are those of `value`, put elsewhere by `run`."""
    shape = call.shape
    axes: list[Axis] = [None] * len(shape)
    zero = [False] * len(shape)
    passed_over: dict[int, Tensor] = {}
    for dim, axis in enumerate(value.axes):
        if axis is None:
            continue
        names, codes = _coded(axis)
        where = _run(run, _spread(codes, dim, value.shape))
        varying = []
        for out in range(len(shape)):
            if _varies(where, out):
                varying.append(out)
            else:
                where = where.narrow(out, 0, 1)
        if not varying:
            call.freeze(names[where.reshape(-1)[:1].long()], "takes one index of it")
            continue
        where = names[where.long()]
        out = varying[0] if len(varying) == 1 else _choose(call, dim, varying, where, passed_over)
        labels = where.movedim(out, 0).reshape(shape[out], -1)[:, 0].contiguous()
        axes[out], zero[out] = _merge(call, axes[out], labels), value.zero[dim]
    for out, labels in passed_over.items():
        if axes[out] is None:
            axes[out] = labels
    return Value(shape, tuple(axes), tuple(zero))


def _coded(axis: Tensor) -> tuple[Tensor, Tensor]:
    """The labels of an axis in order, and their places among them in two bytes each, where that is enough.

    The place of `FIXED` is 0: an operator that makes elements of its own fills them with that.
    """
    names, codes = torch.cat([axis.new_tensor([FIXED]), axis]).unique(return_inverse=True)
    return names, codes[1:].to(torch.int16 if len(names) <= torch.iinfo(torch.int16).max else torch.int64)


def _spread(axis: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """A tensor of `shape` in which each element is its label along `dim`, without a copy."""
    view = [1] * len(shape)
    view[dim] = len(axis)
    return axis.view(view).expand(tuple(shape))


def _run(run: Callable[[Tensor], Tensor], spread: Tensor) -> Tensor:
    """What the operator makes of it, as a copy where it takes no tensor of which elements share memory."""
    try:
        return run(spread)
    except RuntimeError:
        return run(spread.contiguous())


def _varies(where: Tensor, dim: int) -> bool:
    if where.shape[dim] <= 1 or where.stride(dim) == 0:
        return False
    return not torch.equal(where, where.narrow(dim, 0, 1).expand_as(where))


def _choose(call: Call, dim: int, varying: list[int], where: Tensor, passed_over: dict[int, Tensor]) -> int:
    """An axis was split: one of the axes it became stays to be cut, the rest is united."""
    choice, tracer = (call.name, dim), call.tracer
    kept = tracer.choices.get(choice, varying[-1])
    labels = call.tie(where.movedim(kept, 0).reshape(where.shape[kept], -1))
    others = {out: tracer.labels.inert(where.shape[out]) for out in varying if out != kept}
    tracer.splits[choice] = Split(kept, labels, others)
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


@resize("aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand", "aten.broadcast_to")
def _shape(call: Call, kept: Kept) -> Mapping[str, Any]:
    name = "shape" if "shape" in call.bound else "size"
    return {name: resized_shape(call, kept)}


@resize("aten.unflatten")
def _unflatten(call: Call, kept: Kept) -> Mapping[str, Any]:
    dim = call["dim"] % len(call["self"].shape)
    shape = resized_shape(call, kept)
    return {"sizes": shape[dim : dim + len(call["sizes"])]}


@resize("aten.roll")
def _roll(call: Call, kept: Kept) -> Mapping[str, Any]:
    value = call["self"]
    if not call["dims"]:
        return {}
    shifts = []
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        stays = kept(value.axes[dim % len(value.shape)])
        shifts.append(shift if stays is None else int(stays[len(stays) - shift % len(stays) :].sum()))
    return {"shifts": shifts}
