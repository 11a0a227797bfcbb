"""`requires` of a recipe: which distributions, in which versions, must be there."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from demiglace.errors import Fault
from demiglace.plugins.info import PluginInfo, Status

if TYPE_CHECKING:
    from demiglace.plugins.registry import Registry
    from demiglace.recipe import Recipe


def requirement_faults(recipe: Recipe, registry: Registry) -> list[Fault]:
    """The entries of `requires`, such as `acme-passes>=1.2`, that do not hold.

    A distribution whose plugins are all broken or blocked counts as absent.
    """
    found = ((index, _fault(text, registry.plugins)) for index, text in enumerate(recipe.requires))
    return [fault.at(recipe.place(("requires", index))) for index, fault in found if fault is not None]


def _fault(text: str, plugins: list[PluginInfo]) -> Fault | None:
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Fault(f"the recipe requires {text}, which is not installed", hint=f"pip install '{text}'")
    if not requirement.specifier.contains(version, prereleases=True):
        message = f"the recipe requires {text}, but {requirement.name} {version} is installed"
        return Fault(message, hint=f"pip install '{text}'")
    return _unusable(text, requirement.name, plugins)


def _unusable(text: str, distribution: str, plugins: list[PluginInfo]) -> Fault | None:
    """A fault when the distribution has plugins and none of them works."""
    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(distribution)
    own = [plugin for plugin in plugins if canonicalize_name(plugin.distribution) == wanted]
    idle = [plugin for plugin in own if plugin.status in {Status.BROKEN, Status.BLOCKED}]
    if not own or len(idle) < len(own):
        return None
    why = "; ".join(f"plugin {plugin} is {plugin.status}: {plugin.error}" for plugin in idle)
    return Fault(f"the recipe requires {text}, but {why}")
