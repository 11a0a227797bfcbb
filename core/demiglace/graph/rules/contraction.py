"""Sums of products: the summed axes of both factors are tied, and removed terms must be zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import Kept, resize, rule
from demiglace.graph.trace import Call


def contract(call: Call, left: Value, left_dim: int, right: Value, right_dim: int) -> None:
    """Tie the axes that are summed over; freeze them where neither factor becomes zero."""
    one, other = left.axes[left_dim], right.axes[right_dim]
    tied = call.unite(one, other)
    if tied is not None and not (left.zero[left_dim] or right.zero[right_dim]):
        call.freeze(tied, "sums over it, and what is removed is not zero there")


@rule("aten.linear")
def linear(call: Call) -> Value:
    """Y = x W^T + b, with W of shape [out, in]."""
    given, weight, bias = call["input"], call["weight"], call["bias"]
    contract(call, given, -1, weight, 1)
    call.role(weight.axes[0], "produced")
    call.role(weight.axes[1], "consumed")
    out = weight.axes[0]
    if bias is not None:
        out = call.unite(out, bias.axes[0])
    # Without features of its own a bias makes tokens that are not zero.
    zero = [False if bias is not None else flag for flag in given.zero[:-1]]
    return Value(call.shape, (*given.axes[:-1], out), (*zero, weight.zero[0]))


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(call: Call) -> Value:
    """Matrix products over the last two axes, batched over the others."""
    left, right = call.values
    # A vector is a matrix of one row or one column.
    axes_left = left.axes if len(left.axes) > 1 else (None, *left.axes)
    axes_right = right.axes if len(right.axes) > 1 else (*right.axes, None)
    left = Value(
        left.shape if len(left.shape) > 1 else (1, *left.shape),
        axes_left,
        (False,) * (2 - len(left.zero)) + left.zero,
    )
    right = Value(
        right.shape if len(right.shape) > 1 else (*right.shape, 1),
        axes_right,
        right.zero + (False,) * (2 - len(right.zero)),
    )
    contract(call, left, -1, right, -2)
    batch, batch_zero = _batch(call, left, right)
    axes, zero = list(batch), list(batch_zero)
    given = call.values
    if len(given[0].shape) > 1:
        axes.append(left.axes[-2])
        zero.append(left.zero[-2])
    if len(given[1].shape) > 1:
        axes.append(right.axes[-1])
        zero.append(right.zero[-1])
    return Value(call.shape, tuple(axes), tuple(zero))


def _batch(call: Call, left: Value, right: Value) -> tuple[list[Axis], list[bool]]:
    """The batch axes of a product, aligned at the last; where both have them they are heads."""
    count = max(len(left.shape), len(right.shape)) - 2
    axes: list[Axis] = []
    zero: list[bool] = []
    for back in range(count + 2, 2, -1):
        present = [one for one in (left, right) if len(one.shape) >= back and one.shape[-back] != 1]
        axis = present[0].axes[-back] if present else None
        if len(present) == 2:
            axis = call.unite(axis, present[1].axes[-back])
            call.heads(axis)
        axes.append(axis)
        zero.append(any(one.zero[-back] for one in present))
    return axes, zero


@rule("aten.addmm", "aten.baddbmm")
def added(call: Call) -> Value:
    """B + x W, with W of shape [in, out]."""
    bias = call["self"]
    left, right = (call["mat1"], call["mat2"]) if "mat1" in call.bound else (call["batch1"], call["batch2"])
    contract(call, left, -1, right, -2)
    batch, batch_zero = _batch(call, left, right)
    axes = [*batch, left.axes[-2], right.axes[-1]]
    call.role(right.axes[-1], "produced")
    call.role(right.axes[-2], "consumed")
    zero = [*batch_zero, left.zero[-2], right.zero[-1]]
    for back in range(1, len(bias.shape) + 1):
        if bias.shape[-back] != 1:
            axes[-back] = call.unite(axes[-back], bias.axes[-back])
            zero[-back] = zero[-back] and bias.zero[-back]
    zero[: len(axes) - len(bias.shape)] = [False] * (len(axes) - len(bias.shape))
    return Value(call.shape, tuple(axes), tuple(zero))


@rule("aten.bilinear")
def bilinear(call: Call) -> Value:
    """Compute x1^T A x2 + b, with A of shape [out, in1, in2]."""
    left, right, weight, bias = (call[name] for name in ("input1", "input2", "weight", "bias"))
    contract(call, left, -1, weight, 1)
    contract(call, right, -1, weight, 2)
    for axis, role in zip(weight.axes, ("produced", "consumed", "consumed"), strict=True):
        call.role(axis, role)
    lead = [call.unite(one, other) for one, other in zip(left.axes[:-1], right.axes[:-1], strict=True)]
    out = weight.axes[0] if bias is None else call.unite(weight.axes[0], bias.axes[0])
    return Value(call.shape, (*lead, out), (*(False,) * len(lead), True))


@rule("aten.tensordot")
def tensordot(call: Call) -> Value:
    """Sum over pairs of axes; the axes that are left of both stand one after the other."""
    left, right = call["self"], call["other"]
    pairs = [
        (one % len(left.shape), two % len(right.shape))
        for one, two in zip(call["dims_self"], call["dims_other"], strict=True)
    ]
    for one, two in pairs:
        contract(call, left, one, right, two)
    places = [(left, dim) for dim in range(len(left.shape)) if dim not in {one for one, _ in pairs}]
    places += [(right, dim) for dim in range(len(right.shape)) if dim not in {two for _, two in pairs}]
    return Value(
        call.shape, tuple(one.axes[dim] for one, dim in places), tuple(one.zero[dim] for one, dim in places)
    )


@rule("aten.scaled_dot_product_attention")
def attention(call: Call) -> Value:
    """softmax(q k^T * scale + mask) v: heads are independent, keys are normalised over."""
    query, key, value, mask = call["query"], call["key"], call["value"], call["attn_mask"]
    batch = len(query.shape) - 2
    contract(call, query, -1, key, -1)
    axes: list[Axis] = []
    for dim in range(batch):
        axes.append(_head(call, query, key, value, dim))
        call.heads(axes[-1])
    for normalised in (key.axes[-2], value.axes[-2]):
        call.freeze(normalised, "takes a softmax over it")
    if call["is_causal"]:
        call.freeze(query.axes[-2], "masks it by position")
    if mask is not None:
        for back in range(1, len(mask.shape) + 1):
            met = [None, query.axes[-2], *reversed(axes)][back - 1]
            if mask.shape[-back] != 1:
                call.unite(met, mask.axes[-back])
    zero = [value.zero[dim] for dim in range(batch)]
    return Value(call.shape, (*axes, query.axes[-2], value.axes[-1]), (*zero, False, value.zero[-1]))


def _head(call: Call, query: Value, key: Value, value: Value, dim: int) -> Axis:
    """One batch axis of attention; fewer key-value heads each serve a run of query heads."""
    axis, shared = query.axes[dim], call.unite(key.axes[dim], value.axes[dim])
    if query.shape[dim] == key.shape[dim]:
        return call.unite(axis, shared)
    if axis is None or shared is None:
        call.freeze(axis, "shares a fixed axis")
        call.freeze(shared, "shares it with a fixed axis")
        return None
    return call.unite(axis, torch.repeat_interleave(shared, query.shape[dim] // key.shape[dim]))


@resize("aten.scaled_dot_product_attention")
def _scale(call: Call, kept: Kept) -> Mapping[str, Any]:
    """The scale that comes from the head's size stays what it was."""
    cut = kept(call["query"].axes[-1]) is not None
    return {"scale": call["query"].shape[-1] ** -0.5} if cut and call["scale"] is None else {}
