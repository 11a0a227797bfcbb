"""What a plugin's hooks may return; anything else makes that plugin broken, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from demiglace.errors import PluginError
from demiglace.passes.config import Config
from demiglace.passes.spec import CriterionSpec, Kind, PassSpec, Provides, RuntimeSpec, SourceSpec
from demiglace.recipe import DataTable, PassTable, Placement, SourceTable

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*")
_IMPLEMENTATION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

SCHEDULE = "schedule"
"""The key by which a participant says when it acts."""


def checked_items(returned: object, kind: type[T], hook: str) -> list[T]:
    """The items of a list that a hook returned.

    Raises:
        PluginError: it is no list or tuple, or holds something else than `kind`.
    """
    if not isinstance(returned, Sequence) or isinstance(returned, str):
        raise PluginError(f"{hook} must return a list of {kind.__name__}, not {type(returned).__name__}")
    for item in returned:
        if not isinstance(item, kind):
            raise PluginError(f"{hook} must return {kind.__name__} objects, not {item!r}")
    return list(returned)


def check_specs(specs: Sequence[PassSpec | SourceSpec | CriterionSpec | RuntimeSpec]) -> None:
    """Check every spec and that none comes twice.

    Raises:
        PluginError: with all that is wrong.
    """
    problems = [f"{spec.name!r}: {text}" for spec in specs for text in _problems(spec)]
    keys = [(type(spec), getattr(spec, "provides", None), spec.name) for spec in specs]
    problems += [f"{name!r} is announced twice" for name in sorted({k[2] for k in keys if keys.count(k) > 1})]
    if problems:
        raise PluginError("; ".join(problems))


def _problems(spec: PassSpec | SourceSpec | CriterionSpec | RuntimeSpec) -> Iterator[str]:
    if not isinstance(spec.name, str) or not _NAME.fullmatch(spec.name):
        yield "a name is lower-case letters, digits, `_` and `-`, in parts joined by dots"
    if isinstance(spec, PassSpec) and not isinstance(spec.kind, Kind):
        yield f"kind must be a Kind, not {spec.kind!r}"
    if isinstance(spec, SourceSpec) and not isinstance(spec.provides, Provides):
        yield f"provides must be a Provides, not {spec.provides!r}"
    if not isinstance(spec.implementation, str) or not _IMPLEMENTATION.fullmatch(spec.implementation):
        name = "function" if isinstance(spec, CriterionSpec | RuntimeSpec) else "Class"
        yield f"implementation must read 'package.module:{name}', not {spec.implementation!r}"
    if isinstance(spec, CriterionSpec):
        if spec.gathers not in {"nothing", "inputs", "changes"}:
            yield f"gathers must be 'nothing', 'inputs' or 'changes', not {spec.gathers!r}"
    elif isinstance(spec, RuntimeSpec):
        if not spec.suffixes or not all(one.startswith(".") for one in spec.suffixes):
            yield f"suffixes must be at least one, each with its dot, not {spec.suffixes!r}"
    else:
        yield from _option_problems(spec)


def _option_problems(spec: PassSpec | SourceSpec) -> Iterator[str]:
    if not isinstance(spec.config, type) or not issubclass(spec.config, Config):
        yield f"config must be a subclass of demiglace.passes.Config, not {spec.config!r}"
        return
    for key in sorted(_option_keys(spec.config) & recipe_keys(spec)):
        yield f"the option {key!r} cannot be reached: recipes use that key themselves"


def _option_keys(config: type[Config]) -> set[str]:
    return {field.alias or name for name, field in config.model_fields.items()}


def recipe_keys(spec: PassSpec | SourceSpec) -> frozenset[str]:
    """The keys of a table with this `use` that belong to the recipe, so that no option may have them."""
    if isinstance(spec, SourceSpec):
        return frozenset(
            SourceTable.key_names() if spec.provides is Provides.MODEL else DataTable.key_names()
        )
    return frozenset([*PassTable.key_names(), *Placement.key_names(), SCHEDULE])


def recipes_in(folders: Sequence[Path]) -> dict[str, Path]:
    """The `*.toml` files of the folders by their stem.

    Raises:
        PluginError: a folder is absent, or two files have one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise PluginError(f"demiglace_recipes names {folder}, which is no folder")
        for path in sorted(folder.glob("*.toml")):
            if path.stem in found:
                raise PluginError(f"the recipe {path.stem!r} is announced twice")
            found[path.stem] = path
    return found
