"""Pydantic's schemas in the words of JSON Schema draft-07, for TOML."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = dict[str, Any]

_RENAMED = {"$defs": "definitions", "prefixItems": "items"}


def draft7(model: type[BaseModel], home: str) -> Schema:
    """A model's schema.

    Args:
        model: options, or a table of the envelope.
        home: where the result will stand in the whole schema, as a JSON pointer: references to its nested
            models go there.
    """
    schema: Schema = _converted(_raw(model), home)
    return schema


@cache
def _raw(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def described(schema: Schema, text: str) -> Schema:
    """The schema with a description, which draft-07 ignores beside a reference."""
    return {"description": text} | ({"allOf": [schema]} if "$ref" in schema else schema)


def _converted(schema: Any, home: str) -> Any:
    if isinstance(schema, list):
        return [_converted(one, home) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {
        _RENAMED.get(str(key), str(key)): _converted(value, home) for key, value in schema.items()
    }
    if "anyOf" in found:
        found = _without_null(found)
    if isinstance(found.get("$ref"), str):
        found["$ref"] = found["$ref"].replace("#/$defs/", f"{home}/definitions/")
        # Draft-07 ignores what stands beside a reference.
        return found if len(found) == 1 else found | {"allOf": [{"$ref": found.pop("$ref")}]}
    return found


def _without_null(schema: Schema) -> Schema:
    """A union without null, which TOML has not."""
    choices = [one for one in schema["anyOf"] if one != {"type": "null"}]
    rest = {key: schema[key] for key in schema if key != "anyOf" and (key, schema[key]) != ("default", None)}
    return choices[0] | rest if len(choices) == 1 else rest | {"anyOf": choices}
