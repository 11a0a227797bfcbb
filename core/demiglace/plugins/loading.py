"""Loading one plugin: import, hooks, and everything that can be wrong with them."""

from __future__ import annotations

import traceback
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import pluggy

from demiglace.errors import DemiglaceError, PluginError
from demiglace.passes.spec import CriterionSpec, PassSpec, RuntimeSpec, SourceSpec
from demiglace.plugins import hooks
from demiglace.plugins.info import Contribution, PluginInfo, Status
from demiglace.plugins.validation import check_specs, checked_items, recipes_in

T = TypeVar("T")


def load(point: metadata.EntryPoint | str, info: PluginInfo) -> Contribution:
    """Load a plugin; whatever goes wrong makes it broken, and nothing is raised.

    Args:
        point: the entry point, or why it could not even be read.
        info: its name, distribution and version.
    """
    if isinstance(point, str):
        return Contribution(replace(info, status=Status.BROKEN, error=point))
    try:
        return _loaded(point.load(), info)
    # A plugin is foreign code: its module may raise anything, or call sys.exit.
    except (Exception, SystemExit) as error:
        return Contribution(replace(info, status=Status.BROKEN, error=described(error)))


def _loaded(plugin: object, info: PluginInfo) -> Contribution:
    hook = _hooks_of(plugin, info.name)
    passes = _given(hook.demiglace_passes, PassSpec)
    sources = _given(hook.demiglace_sources, SourceSpec)
    folders = _given(hook.demiglace_recipes, Path)
    rules = _given(hook.demiglace_rules, str)
    roundings = _given(hook.demiglace_roundings, str)
    criteria = _given(hook.demiglace_criteria, CriterionSpec)
    runtimes = _given(hook.demiglace_runtimes, RuntimeSpec)
    check_specs([*passes, *sources, *criteria, *runtimes])
    recipes = recipes_in(folders)
    info = replace(
        info,
        passes=tuple(spec.name for spec in passes),
        sources=tuple(dict.fromkeys(spec.name for spec in sources)),
        recipes=tuple(recipes),
        rules=tuple(rules),
        roundings=tuple(roundings),
        criteria=tuple(spec.name for spec in criteria),
        runtimes=tuple(spec.name for spec in runtimes),
    )
    return Contribution(
        info, tuple(passes), tuple(sources), tuple(recipes.items()), tuple(criteria), tuple(runtimes)
    )


def _given(hook: pluggy.HookCaller, kind: type[T]) -> list[T]:
    return [item for returned in hook() for item in checked_items(returned, kind, hook.name)]


def _hooks_of(plugin: object, name: str) -> pluggy.HookRelay:
    """The plugin's hooks in a manager of its own, so that no other plugin's can disturb them."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(plugin, name)
    if not manager.get_hookcallers(plugin):
        raise PluginError("it implements no hook; mark its functions with @demiglace.hookimpl")
    manager.check_pending()
    return manager.hook


def described(error: BaseException) -> str:
    """An exception in one line, with the place in the plugin where it was raised."""
    if isinstance(error, DemiglaceError | pluggy.PluginValidationError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
