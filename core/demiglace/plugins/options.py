"""The options of a pass or source as rows for people: name, type, range, default, meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from demiglace.passes.config import Config

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """One option; those of a nested table follow it as `table.option`."""

    name: str
    type: str
    #: What a number, a text's or list's length may be; empty: anything of its type.
    range: str
    required: bool
    #: A JSON value; `None` also where the option is unset unless given.
    default: Any
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """The option as plain JSON values."""
        return asdict(self)


def options_of(config: type[Config]) -> list[Option]:
    """The options in the order of their declaration."""
    schema = config.model_json_schema()
    return list(_rows(schema, schema.get("$defs", {}), ""))


def _rows(table: Schema, definitions: Schema, prefix: str) -> Iterator[Option]:
    required = table.get("required", ())
    for name, found in table.get("properties", {}).items():
        described = _resolved(found, definitions)
        variants = _variants(described, definitions)
        yield Option(
            name=prefix + name,
            type=" or ".join(dict.fromkeys(_type(one, definitions) for one in variants)),
            range=" or ".join(dict.fromkeys(filter(None, (_range(one) for one in variants)))),
            required=name in required,
            default=described.get("default"),
            meaning=" ".join(described.get("description", "").split()),
        )
        for suffix, nested in _tables(variants, definitions):
            yield from _rows(nested, definitions, f"{prefix}{name}{suffix}.")


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """The schema with its reference followed; what stands beside the reference wins."""
    if "$ref" not in schema:
        return schema
    found = definitions[schema["$ref"].rpartition("/")[2]]
    return {**_resolved(found, definitions), **{key: value for key, value in schema.items() if key != "$ref"}}


def _variants(schema: Schema, definitions: Schema) -> list[Schema]:
    """The alternatives of a union without null, which TOML has not; else the schema itself."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    if not choices:
        return [schema]
    resolved = (_resolved(one, definitions) for one in choices)
    return [inner for one in resolved if one.get("type") != "null" for inner in _variants(one, definitions)]


def _tables(variants: list[Schema], definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Nested tables with options of their own, and how a row's name marks them."""
    for one in variants:
        if "properties" in one:
            yield "", one
        items = _resolved(one.get("items", {}), definitions)
        for item in _variants(items, definitions):
            if "properties" in item:
                yield "[]", item


def _type(schema: Schema, definitions: Schema) -> str:
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " or ".join(_literal(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_inner(schema.get('items', {}), definitions)}"
    if "properties" in schema:
        return "table"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"table of {_inner(inner, definitions)}" if isinstance(inner, Mapping) else "table"
    return str(kind)


def _inner(schema: Schema, definitions: Schema) -> str:
    variants = _variants(_resolved(schema, definitions), definitions)
    return " or ".join(dict.fromkeys(_type(one, definitions) for one in variants))


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"
    return ", ".join(text.format(_number(schema[key])) for key, text in _BOUNDS.items() if key in schema)


def _number(value: float) -> str:
    return f"{value:g}"
