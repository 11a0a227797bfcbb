"""All names that the installed plugins give, and who gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from demiglace.errors import PluginError, RecipeError, UsageError
from demiglace.passes.spec import CriterionSpec, PassSpec, Provides, RuntimeSpec, SourceSpec
from demiglace.plugins.info import Contribution, PluginInfo, Status
from demiglace.recipe import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.calibration import Statistics
    from demiglace.graph import Group

T = TypeVar("T")


class Names(Mapping[str, T], Generic[T]):
    """Things of one kind by name, sorted. A name that two plugins claim raises when it is looked up."""

    def __init__(self, kind: str, claims: Iterable[tuple[str, T, PluginInfo]]) -> None:
        self.kind = kind
        self._claims: dict[str, list[tuple[T, PluginInfo]]] = {}
        for name, thing, plugin in sorted(claims, key=lambda claim: claim[0]):
            self._claims.setdefault(name, []).append((thing, plugin))

    def __getitem__(self, name: str) -> T:
        if len(self._claims[name]) > 1:
            first, *others = self.claimants(name)
            raise PluginError(
                f"the {self.kind} {name!r} is claimed by plugin {first} and by {_listed(others)}",
                hint=f"leave one of them out, as by --no-plugin {others[0].name}",
            )
        return self._claims[name][0][0]

    def __contains__(self, name: object) -> bool:
        return len(self._claims.get(name, ())) == 1  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._claims if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def claimants(self, name: str) -> list[PluginInfo]:
        """The plugins that give a name: one, or several that are in conflict."""
        return [plugin for _, plugin in self._claims[name]]

    def contested(self) -> dict[str, list[PluginInfo]]:
        """The names that more than one plugin claims."""
        return {name: self.claimants(name) for name in self._claims if name not in self}


@dataclass(frozen=True)
class Registry:
    """Passes, sources and recipes by name, and the plugins that they come from."""

    plugins: list[PluginInfo]
    passes: Names[PassSpec]
    model_sources: Names[SourceSpec]
    data_sources: Names[SourceSpec]
    recipes: Names[Path]
    criteria: Names[CriterionSpec]
    runtimes: Names[RuntimeSpec]

    @classmethod
    def of(cls, contributions: Sequence[Contribution]) -> Registry:
        """A registry of what these plugins give."""
        sources = [(s.name, s, one.info) for one in contributions for s in one.sources]
        registry = cls(
            [one.info for one in contributions],
            Names("pass", [(s.name, s, one.info) for one in contributions for s in one.passes]),
            Names("model source", [claim for claim in sources if claim[1].provides is Provides.MODEL]),
            Names("data source", [claim for claim in sources if claim[1].provides is Provides.DATA]),
            Names("recipe", [(name, p, one.info) for one in contributions for name, p in one.recipes]),
            Names("criterion", [(s.name, s, one.info) for one in contributions for s in one.criteria]),
            Names("runtime", [(s.name, s, one.info) for one in contributions for s in one.runtimes]),
        )
        return replace(registry, plugins=[registry._marked(plugin) for plugin in registry.plugins])

    def plugin_of(self, spec: PassSpec | SourceSpec) -> PluginInfo:
        """The plugin that gives a pass or a source of this registry."""
        return self._names_of(spec).claimants(spec.name)[0]

    def implementation(self, spec: PassSpec | SourceSpec) -> type:
        """The class of a pass or source; this imports the plugin's code, and with it torch.

        Raises:
            PluginError: the class cannot be had; the message names the plugin and its version.
        """
        from demiglace.plugins.implementation import load_implementation

        return load_implementation(spec, self.plugin_of(spec))

    def criterion(self, name: str) -> Callable[[Group, Statistics], Tensor | None]:
        """The function of a criterion; this imports the plugin's code, and with it torch.

        Raises:
            PluginError: it cannot be had; the message names the plugin and its version.
        """
        from demiglace.plugins.implementation import load_function

        return load_function(self.criteria[name], self.criteria.claimants(name)[0])

    def open_file(
        self,
        name: str,
        path: str | Path,
        *,
        threads: int | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
        options: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """An exported file as a module whose forward a runtime computes.

        Args:
            name: of the runtime.
            path: of the file.
            threads: that compute; by default as many as torch has.
            precision: in which floating-point values are computed.
            options: of the runtime itself, by its own names.

        Raises:
            UsageError: there is no such runtime, it is not installed, or it has no such precision.
            SourceError: the file cannot be opened.
        """
        from demiglace.plugins.implementation import load_function

        spec = self.runtimes.get(name)
        if spec is None:
            raise UsageError(f"there is no runtime {name!r}", hint=self.absent_hint(name, self.runtimes))
        if missing := spec.missing():
            raise UsageError(
                f"the runtime {name!r} needs {' and '.join(missing)}, not installed here",
                hint=f"pip install '{spec.install or ' '.join(missing)}'",
            )
        load = load_function(spec, self.runtimes.claimants(name)[0])
        module: nn.Module = load(Path(path), threads=threads, precision=precision, options=options or {})
        return module

    def load_registered(self) -> None:
        """Import the modules in which plugins register rules of operators and methods of rounding.

        This imports torch.

        Raises:
            PluginError: one cannot be imported; the message names the plugin and its version.
        """
        from demiglace.plugins.implementation import load_registered

        for plugin in self.plugins:
            load_registered(plugin)

    def recipe(self, name: str) -> Path:
        """The file of a shipped recipe.

        Raises:
            RecipeError: there is none of that name.
            PluginError: two plugins ship one of that name.
        """
        path = self.recipes.get(name)
        if path is None:
            hint = self.absent_hint(name, self.recipes)
            raise RecipeError(f"there is no shipped recipe {name!r}", hint=hint)
        return path

    def absent_hint(self, name: str, known: Iterable[str] = ()) -> str | None:
        """What to do about a name that nothing has.

        Args:
            name: the name that was looked for.
            known: the names that it could have been.
        """
        advice = [
            did_you_mean(name, known),
            *(f"{name!r} is a {names.kind}" for names in self._all() if name in names),
            *(
                f"plugin {plugin} may give it, but is {plugin.status}: {plugin.error}"
                for plugin in self.plugins
                if plugin.status in {Status.BROKEN, Status.BLOCKED}
            ),
        ]
        return "; ".join(filter(None, advice)) or None

    def _all(self) -> tuple[Names[Any], ...]:
        return self.passes, self.model_sources, self.data_sources, self.recipes, self.criteria, self.runtimes

    def _names_of(self, spec: PassSpec | SourceSpec) -> Names[PassSpec] | Names[SourceSpec]:
        if isinstance(spec, PassSpec):
            return self.passes
        return self.model_sources if spec.provides is Provides.MODEL else self.data_sources

    def _marked(self, plugin: PluginInfo) -> PluginInfo:
        """The plugin with its status set when another claims one of its names."""
        texts = [
            f"the {names.kind} {name!r} is also claimed by {_listed(p for p in claimants if p is not plugin)}"
            for names in self._all()
            for name, claimants in names.contested().items()
            if any(p is plugin for p in claimants)
        ]
        return replace(plugin, status=Status.CONFLICT, error="; ".join(texts)) if texts else plugin


def _listed(plugins: Iterable[PluginInfo]) -> str:
    return " and by ".join(str(plugin) for plugin in plugins)
