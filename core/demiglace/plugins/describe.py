"""One pass or source told in full: options, contract, example, and who gives it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from demiglace.errors import RecipeError
from demiglace.passes import Contract, PassSpec, SourceSpec
from demiglace.plugins.info import PluginInfo
from demiglace.plugins.options import Option, options_of
from demiglace.plugins.registry import Registry
from demiglace.plugins.validation import recipe_keys
from demiglace.recipe import validate


@dataclass(frozen=True)
class Description:
    """What `demiglace describe` shows and the reference pages hold."""

    name: str
    #: `editor`, `trainer`, ... or `model source`, `data source`.
    kind: str
    plugin: PluginInfo
    summary: str
    #: The rest of the options' docstring; may be empty.
    details: str
    options: list[Option]
    #: With the example's options; `None` when the example does not show them.
    contract: Contract | None
    #: A TOML table that works; may be empty.
    example: str

    def to_json(self) -> dict[str, Any]:
        """The description as plain JSON values."""
        contract = self.contract and {
            "needs": sorted(self.contract.needs),
            "gives": sorted(self.contract.gives),
            "destroys": sorted(self.contract.destroys),
        }
        return {
            "name": self.name,
            "kind": self.kind,
            "plugin": self.plugin.name,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "summary": self.summary,
            "details": self.details,
            "options": [option.to_json() for option in self.options],
            "contract": contract,
            "example": self.example,
        }


def described(name: str, registry: Registry) -> list[Description]:
    """The pass, the model source and the data source of that name; empty when there is none.

    Raises:
        PluginError: two plugins claim the name.
    """
    places = (registry.passes, registry.model_sources, registry.data_sources)
    found = (names.get(name) for names in places)
    return [_described(spec, registry) for spec in found if spec is not None]


def _described(spec: PassSpec | SourceSpec, registry: Registry) -> Description:
    summary, _, details = (inspect.getdoc(spec.config) or "").partition("\n")
    return Description(
        name=spec.name,
        kind=str(spec.kind) if isinstance(spec, PassSpec) else f"{spec.provides} source",
        plugin=registry.plugin_of(spec),
        summary=summary,
        details=details.strip(),
        options=options_of(spec.config),
        contract=_contract(spec, registry),
        example=spec.example.strip(),
    )


def _contract(spec: PassSpec | SourceSpec, registry: Registry) -> Contract | None:
    """The contract with the example's options: it is a function of them."""
    import tomli

    table = next(_tables_using(spec.name, tomli.loads(spec.example)), {})
    options = {key: value for key, value in table.items() if key not in recipe_keys(spec)}
    try:
        return validate(spec.config, options, context=registry).contract()
    except RecipeError:
        return None


def _tables_using(name: str, value: object) -> Iterator[Mapping[str, Any]]:
    """The tables anywhere in a document whose `use` is that name."""
    if isinstance(value, Mapping):
        if value.get("use") == name:
            yield value
        for inner in value.values():
            yield from _tables_using(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tables_using(name, inner)
