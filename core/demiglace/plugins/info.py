"""What is known of one plugin, working or not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from demiglace.passes.spec import CriterionSpec, PassSpec, RuntimeSpec, SourceSpec


class Status(StrEnum):
    """How a plugin fares."""

    ACTIVE = "active"
    BROKEN = "broken"
    BLOCKED = "blocked"
    #: It works, but another plugin claims one of its names; its other names can be used.
    CONFLICT = "conflict"


@dataclass(frozen=True)
class PluginInfo:
    """One entry point of one distribution and what became of it."""

    #: The entry point's name; two distributions may use the same.
    name: str
    distribution: str
    version: str
    status: Status
    #: Why it is broken, blocked or in conflict.
    error: str | None = None
    passes: tuple[str, ...] = ()
    #: Names of model and data sources; a name that gives both stands here once.
    sources: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    #: Modules that register rules of operators.
    rules: tuple[str, ...] = ()
    #: Modules that register methods of rounding.
    roundings: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    #: What runs exported files.
    runtimes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Contribution:
    """A plugin with what it gives; nothing when it is broken or blocked."""

    info: PluginInfo
    passes: tuple[PassSpec, ...] = ()
    sources: tuple[SourceSpec, ...] = ()
    #: Names and files.
    recipes: tuple[tuple[str, Path], ...] = ()
    criteria: tuple[CriterionSpec, ...] = ()
    runtimes: tuple[RuntimeSpec, ...] = ()
