"""Structural edits as JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from demiglace.errors import ArtifactError
from demiglace.graph.edits import Bypass, Cut, Json, Lower, Round, SetAttr, StructuralEdit, Swap


def edit_to_json(edit: StructuralEdit) -> dict[str, Any]:
    """An edit as a JSON object.

    Raises:
        ArtifactError: for a value that JSON cannot hold, NaN and infinity included.
    """
    match edit:
        case Cut():
            return {"edit": "cut", "tensor": edit.tensor, "dim": edit.dim, "kept": list(edit.kept)}
        case SetAttr():
            value = _plain(edit.value, f"attribute {edit.name!r} of {edit.module!r}")
            return {"edit": "set", "module": edit.module, "name": edit.name, "value": value}
        case Swap():
            options = _plain(edit.options, f"the options of {edit.type!r}")
            return {"edit": "swap", "module": edit.module, "type": edit.type, "options": options}
        case Lower():
            return {"edit": "lower"}
        case Bypass():
            return {"edit": "bypass", "sum": edit.sum, "operand": edit.operand}
        case Round():
            return {"edit": "round", "values": _plain(edit.values, "a rounding")}


def edit_from_json(value: Any) -> StructuralEdit:
    """The edit that `edit_to_json` wrote.

    Raises:
        ArtifactError: when it is none.
    """
    match value:
        case {"edit": "cut", "tensor": str(tensor), "dim": int(dim), "kept": [*kept]} if _ascending(kept):
            return Cut(tensor, dim, tuple(kept))
        case {"edit": "set", "module": str(module), "name": str(name), "value": new}:
            return SetAttr(module, name, new)
        case {"edit": "swap", "module": str(module), "type": str(kind), "options": dict(options)}:
            return Swap(module, kind, options)
        case {"edit": "lower"}:
            return Lower()
        case {"edit": "bypass", "sum": str(name), "operand": str(operand)}:
            return Bypass(name, operand)
        case {"edit": "round", "values": dict(values)} if all(map(_is_affine, values.values())):
            return Round({name: (float(scale), zero) for name, (scale, zero) in values.items()})
    raise ArtifactError(f"the manifest holds something that is not an edit: {str(value)[:100]}")


def _ascending(kept: list[Any]) -> bool:
    if not all(type(index) is int for index in kept):
        return False
    return all(low < high for low, high in zip([-1, *kept], kept, strict=False))


def _is_affine(value: Any) -> bool:
    """Whether a value is a scale and a zero point."""
    match value:
        case [float() | int() as scale, int(zero)]:
            return scale > 0 and -128 <= zero <= 127
    return False


def _plain(value: Any, what: str) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(inner, what) for inner in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(inner, what) for key, inner in value.items()}
    raise ArtifactError(
        f"{what} is set to {value!r}, which cannot be stored", hint="an edit's values are plain JSON"
    )
