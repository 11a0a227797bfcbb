"""Operators that make new tensors of a stated size."""

from __future__ import annotations

from demiglace.graph.labels import Value, plain
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


@rule("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty", "aten.new_empty_strided")
def created(call: Call) -> Value:
    """Only dtype and device come from the input."""
    return plain(call.shape)
