"""Nested state, such as an optimizer's, as JSON and tensors by name, and back without pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from demiglace.errors import ArtifactError


def split(value: object) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tree of mappings, lists, tuples, numbers, text and tensors as JSON, and its tensors by their paths.

    Raises:
        ArtifactError: for anything else in it; names the place.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _split(value, "state", tensors), tensors


def join(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `split` took apart.

    Raises:
        ArtifactError: when `plain` is no such JSON.
    """
    match plain:
        case None | bool() | int() | float() | str():
            return plain
        case ["dict", list(items)]:
            return {join(key, tensors): join(inner, tensors) for key, inner in items}
        case ["list", list(items)]:
            return [join(inner, tensors) for inner in items]
        case ["tuple", list(items)]:
            return tuple(join(inner, tensors) for inner in items)
        case ["float", str(text)]:
            return float(text)
        case ["tensor", str(name)] if name in tensors:
            return tensors[name]
    raise ArtifactError(f"a checkpoint holds something that is no state: {str(plain)[:100]}")


def _split(value: object, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # Keys may hold dots themselves: two places can have one path.
        name = path if path not in tensors else f"{path} ({len(tensors)})"
        tensors[name] = value.detach()
        return ["tensor", name]
    if isinstance(value, float) and not math.isfinite(value):
        return ["float", str(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        items = [[_split(key, path, {}), _split(one, f"{path}.{key}", tensors)] for key, one in value.items()]
        return ["dict", items]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_split(one, f"{path}.{index}", tensors) for index, one in enumerate(value)]]
    raise ArtifactError(
        f"{path} is a {type(value).__name__}, which a checkpoint cannot hold",
        hint="a state is made of mappings, lists, numbers, text and tensors",
    )
