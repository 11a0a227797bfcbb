"""Pydantic models whose JSON Schema holds the docstrings below their fields."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Documented:
    """A base beside `BaseModel`: reads the docstrings when a schema is asked for.

    Pydantic's `use_attribute_docstrings` parses the module of each class whenever one is made: with dozens of
    plugins' options that costs commands which show none of them a fifth of their time.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for key, text in _docstrings(cls):
            properties.get(key, {}).setdefault("description", text)
        return schema


def _docstrings(model: type) -> Iterator[tuple[str, str]]:
    """Keys of the schema with the docstrings; those of the class itself come before its bases'."""
    fields = model.model_fields if issubclass(model, BaseModel) else {}
    for base in model.__mro__:
        if issubclass(base, BaseModel) and issubclass(base, Documented):
            own = _in_module(base.__module__).get(base.__qualname__, {})
            yield from ((fields[name].alias or name, own[name]) for name in own if name in fields)


@cache
def _in_module(name: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of each class of a module, by the class's qualified name."""
    try:
        source = inspect.getsource(sys.modules[name])
    except (OSError, TypeError, KeyError):  # a module that was made without a file
        return {}
    return dict(_classes(ast.parse(source), ""))


def _classes(scope: ast.AST, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for one in ast.iter_child_nodes(scope):
        if isinstance(one, ast.ClassDef):
            yield prefix + one.name, _fields(one)
            yield from _classes(one, f"{prefix}{one.name}.")
        elif isinstance(one, ast.FunctionDef):
            yield from _classes(one, f"{prefix}{one.name}.<locals>.")


def _fields(made: ast.ClassDef) -> dict[str, str]:
    pairs = ((_declared(one), _text(after)) for one, after in pairwise(made.body))
    return {name: inspect.cleandoc(text) for name, text in pairs if name is not None and text is not None}


def _declared(statement: ast.stmt) -> str | None:
    """The name that an annotated assignment declares."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return None


def _text(statement: ast.stmt) -> str | None:
    """The text of a statement that is nothing but a text."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return statement.value.value if isinstance(statement.value.value, str) else None
    return None
