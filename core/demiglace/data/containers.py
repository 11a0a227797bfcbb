"""What models take and return, in whatever containers: tuples, mappings, dataclasses, namespaces.

torch's own trees stop at containers that nobody registered with them, such as a subclass of dict or a
dataclass, and take each of these for one value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any


def leaves(value: Any) -> Iterator[Any]:
    """All that containers hold which is no container itself, in order."""
    parts = _parts(value)
    if parts is None:
        yield value
        return
    for part in parts.values():
        yield from leaves(part)


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Containers like these with each leaf changed; those that are handed in stay as they are."""
    parts = _parts(value)
    if parts is None:
        return change(value)
    changed = {key: mapped(change, part) for key, part in parts.items()}
    if isinstance(value, tuple):
        return type(value)(*changed.values()) if hasattr(value, "_fields") else tuple(changed.values())
    if isinstance(value, list):
        return list(changed.values())
    if isinstance(value, Mapping) and not isinstance(value, MutableMapping):
        return changed
    made = copy.copy(value)
    for key, part in changed.items():
        if isinstance(made, MutableMapping):
            made[key] = part
        else:
            object.__setattr__(made, key, part)  # a frozen dataclass refuses its own
    return made


def plain(value: Any) -> Any:
    """The same for torch's trees: a container that they do not know becomes a dict."""
    from torch.utils._pytree import tree_map

    def opened(leaf: Any) -> Any:
        parts = _parts(leaf)
        return leaf if parts is None else {key: plain(part) for key, part in parts.items()}

    return tree_map(opened, value)


def ordinary(value: Any) -> Any:
    """A tensor that gradients can be computed with: a copy of one made in inference mode."""
    return value.clone() if hasattr(value, "is_inference") and value.is_inference() else value


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a container holds, by its keys, places or fields; `None` for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if isinstance(value, SimpleNamespace):
        return dict(vars(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return None
