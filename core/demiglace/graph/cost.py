"""What a cut would leave of a model's parameters and multiplications, without making it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from demiglace.graph.labels import Value
from demiglace.graph.literals import Removal
from demiglace.graph.rules.einsum import equation

if TYPE_CHECKING:
    from demiglace.graph.model_graph import ModelGraph
    from demiglace.graph.trace import Call


def parameters_after(model: ModelGraph, removal: Removal) -> dict[str, int]:
    """How many elements each parameter has after the cut, by name; shared ones once."""
    slots = removal.tracer.slots
    return {
        name: prod(removal.size(slot.labels, len(slot.labels)) for slot in slots[name])
        if name in slots
        else parameter.numel()
        for name, parameter in model.module.named_parameters()
    }


def macs_after(removal: Removal) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products on the traced example."""
    return sum(_of_call(call, removal) for call in removal.tracer.calls if call.name.startswith("eval:"))


def macs_by_node(model: ModelGraph) -> dict[str, int]:
    """Multiply-accumulates of each call on the traced example, by the names of `model.branches`."""
    from demiglace.graph.plain import PlainGraph, traced_names

    removal = Removal.of(model.traced_form.tracer, {})
    found = {call.name: _of_call(call, removal) for call in removal.tracer.calls}
    names = (
        traced_names(model)
        if isinstance(model.module, PlainGraph)
        else {node.name: node.name for node in model.branches.data.nodes}
    )
    return {own: found.get(f"eval:{traced}", 0) for own, traced in names.items()}


def _of_call(call: Call, removal: Removal) -> int:
    if not isinstance(call.result, Value):
        return 0
    kind = call.op.removeprefix("aten.")
    if kind.startswith("conv"):
        weight = call["weight"]
        base = call["input"] if "transpose" in kind or call.bound.get("transposed") else call.result
        return _numel(base, removal) * _numel(weight, removal) // _size(weight, 0, removal)
    if kind == "linear":
        return _numel(call.result, removal) * _size(call["input"], -1, removal)
    if kind in {"matmul", "mm", "bmm", "mv", "dot"}:
        return _numel(call.result, removal) * _size(call.values[0], -1, removal)
    if kind in {"addmm", "baddbmm"}:
        return _numel(call.result, removal) * _size(call.values[1], -1, removal)
    if kind == "scaled_dot_product_attention":
        keys = _size(call["key"], -2, removal)
        products = _numel(call["query"], removal) + _numel(call.result, removal)
        return products * keys
    return _einsum(call, removal) if kind == "einsum" else 0


def _einsum(call: Call, removal: Removal) -> int:
    """Every combination of letters is one product."""
    inputs, _ = equation(call)
    sizes = {
        letter: _size(value, place, removal)
        for term, value in zip(inputs, call["tensors"], strict=True)
        for place, letter in enumerate(term)
    }
    return prod(sizes.values())


def _size(value: Value, dim: int, removal: Removal) -> int:
    return removal.size(value.axes[dim], value.shape[dim])


def _numel(value: Value, removal: Removal) -> int:
    return prod(_size(value, dim, removal) for dim in range(len(value.shape)))
