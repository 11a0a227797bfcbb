"""Finding plugins: entry point by entry point, so that a broken one leaves the others alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import metadata

from demiglace.errors import PluginError
from demiglace.plugins.hooks import PROJECT
from demiglace.plugins.info import Contribution, PluginInfo, Status
from demiglace.plugins.loading import load
from demiglace.plugins.registry import Registry
from demiglace.recipe import did_you_mean

BLOCK_VARIABLE = "DEMIGLACE_BLOCK_PLUGINS"
"""Environment variable: plugins to leave out, separated by commas."""


def discover(block: Sequence[str] = ()) -> Registry:
    """Load the installed plugins.

    Args:
        block: plugins to leave out, by entry-point or distribution name; those in the environment
            variable `DEMIGLACE_BLOCK_PLUGINS` are left out as well.

    Raises:
        PluginError: `block` names a plugin that is not installed.
    """
    found = list(_entry_points())
    _check_blocks(block, found)
    by_environment = [name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",")]
    contributions = []
    for point, info in found:
        if _named(info, block):
            contributions.append(_blocked(info, "blocked by --no-plugin"))
        elif _named(info, by_environment):
            contributions.append(_blocked(info, f"blocked by {BLOCK_VARIABLE}"))
        else:
            contributions.append(load(point, info))
    return Registry.of(contributions)


def _entry_points() -> Iterator[tuple[metadata.EntryPoint | str, PluginInfo]]:
    """Every entry point of the group, or the reason why a distribution's cannot be read."""
    for distribution in _distributions():
        name, version = distribution.metadata["Name"], distribution.version
        try:
            points = sorted(distribution.entry_points.select(group=PROJECT), key=lambda point: point.name)
        except (ValueError, TypeError) as error:
            info = PluginInfo("?", name, version, Status.ACTIVE)
            yield f"its entry_points.txt cannot be read: {error}", info
            continue
        for point in points:
            yield point, PluginInfo(point.name, name, version, Status.ACTIVE)


def _distributions() -> list[metadata.Distribution]:
    """The distributions with entry points for us, by name; the first on the path hides later ones.

    Only these have their metadata parsed: parsing all that are installed takes longer than the rest.
    """
    names: dict[str, str] = {}
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt") or ""
        if re.search(rf"^\s*\[\s*{PROJECT}\s*\]", text, re.MULTILINE):
            name = distribution.metadata["Name"]
            names.setdefault(_normalized(name), name)
    # Asked for by name, because what hides it may have no entry point for us.
    return [metadata.distribution(names[name]) for name in sorted(names)]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(info: PluginInfo, names: Sequence[str]) -> bool:
    return info.name in names or _normalized(info.distribution) in map(_normalized, names)


def _check_blocks(block: Sequence[str], found: Sequence[tuple[object, PluginInfo]]) -> None:
    infos = [info for _, info in found]
    for name in block:
        if not any(_named(info, [name]) for info in infos):
            known = sorted({text for info in infos for text in (info.name, info.distribution)})
            raise PluginError(f"no plugin named {name!r} to block", hint=did_you_mean(name, known))


def _blocked(info: PluginInfo, reason: str) -> Contribution:
    return Contribution(PluginInfo(info.name, info.distribution, info.version, Status.BLOCKED, reason))
