"""Operators that make new tensors of a stated size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demiglace.graph.labels import Axis, Value, plain
from demiglace.graph.rules.registry import Kept, resize, resized_shape, rule
from demiglace.graph.trace import Call

_FILLED = (
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.new_empty",
)


@rule(*_FILLED)
def filled(call: Call) -> Value:
    """One value everywhere: an axis has the size of whatever it will meet."""
    axes: list[Axis] = [
        call.tracer.labels.weak(size) if size > 1 and call.sized(dim) else None
        for dim, size in enumerate(call.shape)
    ]
    zero = "zeros" in call.op or call.bound.get("fill_value") == 0
    return Value(call.shape, tuple(axes), (zero,) * len(axes))


@resize(*_FILLED)
def _size(call: Call, kept: Kept) -> Mapping[str, Any]:
    return {"size": resized_shape(call, kept)}


@rule("aten.new_empty_strided")
def created(call: Call) -> Value:
    """Only dtype and device come from the input."""
    return plain(call.shape)
