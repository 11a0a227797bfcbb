"""What an option must be, in words, read off its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from demiglace.recipe.tree import Part

Schema = Mapping[str, Any]

_SINGULAR = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}
_PLURAL = {
    "number": "numbers",
    "integer": "whole numbers",
    "string": "texts",
    "array": "lists",
    "object": "tables",
}
_LOW = (("minimum", "at least"), ("exclusiveMinimum", "above"))
_HIGH = (("maximum", "at most"), ("exclusiveMaximum", "below"))
_LONGEST = 60


def schemas_at(root: Schema, path: Sequence[Part]) -> list[Schema]:
    """The schemas, one for each branch of a union, that hold for the value at a path."""
    found = list(_branches(root, root))
    for part in path:
        found = [branch for one in found for inner in _step(one, part) for branch in _branches(inner, root)]
    return found


def _branches(schema: Schema, root: Schema) -> Iterator[Schema]:
    """A schema with its reference followed and its alternatives taken apart; its own description stays."""
    own = {key: schema[key] for key in ("description",) if key in schema}
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        yield from _branches({**target, **own}, root)
        return
    choices = schema.get("anyOf") or schema.get("oneOf")
    if not choices:
        yield schema
        return
    for choice in choices:
        yield from _branches({**choice, **own}, root)


def _step(schema: Schema, part: Part) -> Iterator[Schema]:
    if isinstance(part, int):
        fixed = schema.get("prefixItems", [])
        inner = fixed[part] if part < len(fixed) else schema.get("items")
    else:
        inner = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
    if isinstance(inner, Mapping):
        yield inner


def expectation(schemas: Iterable[Schema]) -> str | None:
    """The alternatives in words, such as `a number between 0 and 1`; `None` when anything goes."""
    words = [_words(schema) for schema in schemas if schema.get("type") != "null"]
    known = list(dict.fromkeys(word for word in words if word))
    if None in words or not known:
        return None
    if "a number" in known and "a whole number" in known:
        known.remove("a whole number")
    return " or ".join(known)


def _words(schema: Schema) -> str | None:
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        values = [shown(value) for value in schema["enum"]]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    kind = schema.get("type")
    if kind in {"number", "integer"}:
        steps = f" that is a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
        return _SINGULAR[kind] + _bounds(schema) + steps
    if kind == "array":
        return _list(schema)
    if kind == "string":
        return _text(schema)
    return _SINGULAR.get(str(kind))


def _bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" between {_figure(schema['minimum'])} and {_figure(schema['maximum'])}"
    given = [f"{word} {_figure(schema[key])}" for key, word in (*_LOW, *_HIGH) if key in schema]
    bounds = " and ".join(given)
    return f" of {bounds}" if bounds.startswith("at") else f" {bounds}" if bounds else ""


def _figure(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _text(schema: Schema) -> str:
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    return "non-empty text" if schema.get("minLength") == 1 else "text"


def _list(schema: Schema) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    items = schema.get("items") or {}
    kinds = {one.get("type") for one in schema.get("prefixItems", [items])}
    kind = _PLURAL.get(str(kinds.pop()), "values") if len(kinds) == 1 else "values"
    if low and low == high:
        return f"a list of {low} {kind}"
    if high is not None:
        return f"a list of {low} to {high} {kind}"
    if low > 1:
        return f"a list of at least {low} {kind}"
    if low:
        return "a list that is not empty"
    return "a list" if kind == "values" else f"a list of {kind}"


def shown(value: object) -> str:
    """A value as the user wrote it in TOML, or what it is when it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
