"""The JSON Schema of recipes, with the options of every installed plugin.

Draft-07, which the TOML language servers speak. What a table may hold depends on its `use`: an enum of
the names, then `if use is X then X's options`, and not `oneOf`, of which a server could only say that
none of the alternatives fits. A recipe that `extends` another may leave out what the other gives, so that
what is required stands in one `else`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from demiglace.passes import Kind, PassSpec, SourceSpec
from demiglace.passes.schedule import Schedule
from demiglace.plugins.draft7 import Schema, described, draft7
from demiglace.plugins.validation import SCHEDULE
from demiglace.recipe import (
    EXTENDS,
    DataTable,
    NetworkTable,
    PassTable,
    Placement,
    Recipe,
    SourceTable,
    UseTable,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from demiglace.plugins.registry import Registry

Spec = PassSpec | SourceSpec

DIALECT = "http://json-schema.org/draft-07/schema#"
TITLE = "demiglace recipe"

#: Tables of the envelope that the schema's own take the place of.
_REPLACED = (Recipe, SourceTable, DataTable, NetworkTable, PassTable, UseTable)


def recipe_schema(registry: Registry) -> Schema:
    """The schema of a recipe's TOML, as plain data."""
    envelope = draft7(Recipe, "#")
    properties = _properties(Recipe)
    tables = _Tables(registry)
    for key, schema in tables.properties().items():
        properties[key] = described(schema, properties[key]["description"])
    extends = {"type": "string", "description": "The recipe that this one changes: a path, or recipe:NAME."}
    replaced = {model.__name__ for model in _REPLACED}
    own = {name: schema for name, schema in envelope["definitions"].items() if name not in replaced}
    return {
        "$schema": DIALECT,
        "title": TITLE,
        "type": "object",
        "properties": properties | {EXTENDS: extends},
        "additionalProperties": False,
        "if": {"required": [EXTENDS]},
        "else": {"required": ["pass"], "properties": tables.required()},
        "definitions": own | tables.definitions,
    }


class _Tables:
    """The tables that name a pass or a source, each with what its `use` allows."""

    def __init__(self, registry: Registry) -> None:
        self.definitions: Schema = {}
        passes = list(registry.passes.values())
        self.steps = [spec for spec in passes if spec.kind is not Kind.PARTICIPANT]
        self.inside = [spec for spec in passes if spec.kind in {Kind.EDITOR, Kind.PARTICIPANT}]
        self.evaluators = [spec for spec in passes if spec.kind is Kind.EVALUATOR]
        self.models = list(registry.model_sources.values())
        self.data = list(registry.data_sources.values())
        #: By what `names_of` in an option's schema says, the names that the option may have.
        self.names = {"criteria": list(registry.criteria)}

    def properties(self) -> Schema:
        """The recipe's keys whose tables depend on plugins; defines what they refer to."""
        step = _properties(PassTable) | _properties(Placement)
        inside = {key: value for key, value in step.items() if key != "with"}
        participants = _list_of(self._table("participant", self.inside, inside))
        step["with"] = described(participants, step["with"]["description"])
        network = _properties(NetworkTable) | {"recipe": {"type": "string"}}
        return {
            "model": self._table("model", self.models, _properties(SourceTable)),
            "data": self._table("data", self.data, _properties(DataTable)),
            "teacher": self._table("network", self.models, network),
            "student": {"$ref": "#/definitions/network"},
            "pass": _list_of(self._table("pass", self.steps, step)),
            "evaluate": _list_of(self._evaluator()),
        }

    def required(self) -> Schema:
        """What a recipe that extends none must say in these tables."""
        step = _required(self.steps) | {"properties": {"with": {"items": _required(self.inside)}}}
        return {"model": _required(self.models), "data": _required(self.data), "pass": {"items": step}}

    def _named(self, options: Schema) -> Schema:
        """The options with the names that plugins give where one of these is asked for."""
        properties = {
            key: {"enum": self.names[one["names_of"]]} | {k: v for k, v in one.items() if k != "names_of"}
            if isinstance(one, Mapping) and "names_of" in one
            else one
            for key, one in options["properties"].items()
        }
        return options | {"properties": properties}

    def _evaluator(self) -> Schema:
        """An evaluator's bare name, or its table."""
        names = {"enum": [spec.name for spec in self.evaluators]}
        table = self._table("evaluator", self.evaluators, _properties(UseTable))
        return {"if": {"type": "string"}, "then": names, "else": table}

    def _table(self, role: str, specs: Sequence[Spec], own: Schema) -> Schema:
        """A table whose `use` is one of the specs' names, with the envelope's `own` keys."""
        then: dict[str, Schema] = {}
        for spec in specs:
            key = f"{role}.{spec.name}"
            then[spec.name] = {"$ref": f"#/definitions/{key}"}
            self.definitions[key] = self._named(_options(role, spec, own, f"#/definitions/{key}"))
        use = {"enum": list(then), "description": own["use"].get("description", "")}
        self.definitions[role] = {
            "type": "object",
            "properties": own | {"use": use},
            "allOf": _by_use(then),
        }
        return {"$ref": f"#/definitions/{role}"}


def _options(role: str, spec: Spec, own: Schema, home: str) -> Schema:
    """The options of one pass or source, and the keys of the envelope that may stand beside them."""
    schema = draft7(spec.config, home)
    schema.pop("required", None)
    allowed: Schema = dict.fromkeys(own, True)
    if isinstance(spec, PassSpec) and spec.kind is not Kind.TRAINER:
        allowed.pop("with", None)
    if isinstance(spec, PassSpec) and spec.kind is Kind.EDITOR and role == "participant":
        allowed[SCHEDULE] = draft7(Schedule, f"{home}/properties/{SCHEDULE}")
    return schema | {"properties": allowed | schema.get("properties", {})}


def _required(specs: Iterable[Spec]) -> Schema:
    needs = {spec.name: draft7(spec.config, "#").get("required") for spec in specs}
    then = {name: {"required": keys} for name, keys in needs.items() if keys}
    return {"required": ["use"], "allOf": _by_use(then)}


def _by_use(then: Mapping[str, Schema]) -> list[Schema]:
    return [
        {"if": {"properties": {"use": {"const": name}}, "required": ["use"]}, "then": schema}
        for name, schema in then.items()
    ]


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _properties(table: type[BaseModel]) -> Schema:
    """The keys of an envelope table."""
    schema = draft7(table, "#")
    # A model that refers to itself stands among its own definitions.
    found: Schema = schema.get("definitions", {}).get(table.__name__, schema)["properties"]
    return found
