"""Attributes of modules that hold sizes, as they must be after a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from demiglace.graph.edits import SetAttr
from demiglace.graph.labels import Value
from demiglace.graph.layer_sizes import Shapes, sizes_of
from demiglace.graph.literals import Removal
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph.edits import Json


def attributes(module: nn.Module, removal: Removal, shapes: Shapes) -> Iterator[SetAttr]:
    """The attributes that change.

    Args:
        module: the model, before the cut.
        removal: what goes.
        shapes: of every parameter and buffer after the cut, by qualified name.
    """
    literals: dict[str, dict[str, Any]] = {}
    for call, changes in removal.literals:
        literals.setdefault(call.layer, {}).update(changes)
    sizes = _sizes(removal)
    for name, child in module.named_modules():
        own = {
            key: shapes[f"{name}.{key}" if name else key]
            for key in (*child._parameters, *child._buffers)
            if (f"{name}.{key}" if name else key) in shapes
        }
        found: dict[str, Json] = {**sizes_of(child, own, literals.get(name or ROOT, {}))}
        if not type(child).__module__.startswith("torch.nn"):
            found = {**_guessed(child, sizes.get(name or ROOT, {})), **found}
        for attribute, value in found.items():
            old = getattr(child, attribute)
            if (list(old) if isinstance(old, tuple) else old) != value:
                yield SetAttr(name or ROOT, attribute, value)


def _sizes(removal: Removal) -> dict[str, dict[int, set[int]]]:
    """By layer: which sizes its code met, and what each became."""
    met: dict[str, dict[int, set[int]]] = {}
    for call in removal.tracer.calls:
        results = call.result if isinstance(call.result, list | tuple) else [call.result]
        table = met.setdefault(call.layer, {})
        for value in (*call.values, *results):
            if not isinstance(value, Value):
                continue
            for axis, size in zip(value.axes, value.shape, strict=True):
                table.setdefault(size, set()).add(removal.size(axis, size))
    return met


def _guessed(module: nn.Module, sizes: Mapping[int, set[int]]) -> dict[str, Json]:
    """Whole numbers that a user's own module keeps, where all sizes of that value became one other.

    A guess: verification proves or refutes it.
    """
    return {
        name: next(iter(sizes[value]))
        for name, value in vars(module).items()
        if type(value) is int and not name.startswith("_") and len(sizes.get(value, ())) == 1
    }
