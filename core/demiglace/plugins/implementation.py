"""From a spec to the class that does the work: the only place where a plugin's heavy code is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from inspect import isabstract
from typing import Any, TypeAlias

from demiglace.errors import DemiglaceError, PluginError
from demiglace.passes import base
from demiglace.passes.participant import Participant
from demiglace.passes.spec import CriterionSpec, Kind, PassSpec, Provides, RuntimeSpec, SourceSpec
from demiglace.plugins.info import PluginInfo
from demiglace.plugins.loading import described

_Spec: TypeAlias = PassSpec | SourceSpec | CriterionSpec | RuntimeSpec

INTERFACES: dict[Kind | Provides, type] = {
    Kind.EDITOR: base.Editor,
    Kind.TRAINER: base.Trainer,
    Kind.PARTICIPANT: Participant,
    Kind.EVALUATOR: base.Evaluator,
    Kind.EXPORTER: base.Exporter,
    Provides.MODEL: base.ModelSource,
    Provides.DATA: base.DataSource,
}


def load_implementation(spec: PassSpec | SourceSpec, plugin: PluginInfo) -> type:
    """Import the class that a spec names.

    Raises:
        PluginError: it cannot be imported, is missing, or does not fit the interface of its kind.
    """
    found = _imported(spec, plugin)
    interface = INTERFACES[spec.kind if isinstance(spec, PassSpec) else spec.provides]
    if not isinstance(found, type) or not issubclass(found, interface):
        raise _fault(spec, plugin, f"{spec.implementation} is no subclass of {interface.__name__}")
    if isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__")))  # noqa: B009
        raise _fault(spec, plugin, f"{spec.implementation} does not implement {missing}")
    return found


def load_function(spec: CriterionSpec | RuntimeSpec, plugin: PluginInfo) -> Callable[..., Any]:
    """Import the function that a spec names; raises as `load_implementation`."""
    found = _imported(spec, plugin)
    if not callable(found):
        raise _fault(spec, plugin, f"{spec.implementation} is no function")
    return found


def _imported(spec: _Spec, plugin: PluginInfo) -> Any:
    module_name, _, name = spec.implementation.partition(":")
    try:
        return getattr(import_module(module_name), name)
    except DemiglaceError:
        raise
    except ModuleNotFoundError as error:
        raise _fault(spec, plugin, described(error), _extra_hint(error.name, plugin)) from error
    except (Exception, SystemExit) as error:
        raise _fault(spec, plugin, described(error)) from error


def load_registered(plugin: PluginInfo) -> None:
    """Import the modules in which a plugin registers the rules of operators and methods of rounding.

    Raises:
        PluginError: one cannot be imported, or registers what is registered already.
    """
    _import_all(plugin, plugin.rules, "rules")
    _import_all(plugin, plugin.roundings, "rounding methods")


def _import_all(plugin: PluginInfo, modules: Sequence[str], what: str) -> None:
    for module in modules:
        try:
            import_module(module)
        except (Exception, SystemExit) as error:
            hint = _extra_hint(error.name, plugin) if isinstance(error, ModuleNotFoundError) else None
            raise PluginError(
                f"the {what} {module!r} of plugin {plugin} cannot be used: {described(error)}", hint=hint
            ) from error


def _fault(spec: _Spec, plugin: PluginInfo, text: str, hint: str | None = None) -> PluginError:
    return PluginError(f"{spec.name!r} of plugin {plugin} cannot be used: {text}", hint=hint)


def _extra_hint(module: str | None, plugin: PluginInfo) -> str | None:
    """What to install so that a missing module is there: the extra that names it, or the module itself."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if module is None:
        return None
    package = canonicalize_name(module.partition(".")[0])
    for text in metadata.requires(plugin.distribution) or ():
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != package or requirement.marker is None:
            continue
        extra = _extra_of(str(requirement.marker))
        if extra:
            return f"pip install '{plugin.distribution}[{extra}]'"
    return f"is {package!r} installed?"


def _extra_of(marker: str) -> str | None:
    """The extra in a marker such as `python_version > "3" and extra == "demo"`."""
    _, found, rest = marker.partition('extra == "')
    return rest.partition('"')[0] if found else None
