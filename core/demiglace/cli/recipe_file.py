"""Writing a recipe for the user, with the schema that helps an editor with it beside it."""

from __future__ import annotations

import json
from pathlib import Path

from demiglace.errors import UsageError
from demiglace.plugins import Registry

SCHEMA_FILE = "recipe.schema.json"
SCHEMA_TITLE = '"title": "demiglace recipe"'
SCHEMA_LINE = f"#:schema ./{SCHEMA_FILE}"


def refuse_overwriting(recipe: Path) -> None:
    """Refuse to write over a recipe, or over a schema that is not ours.

    Raises:
        UsageError: when one of them is there.
    """
    if recipe.exists():
        raise UsageError(f"{recipe} exists", hint="give another file, or --force to overwrite it")
    schema = recipe.with_name(SCHEMA_FILE)
    # A schema of ours is only brought up to date.
    if schema.exists() and SCHEMA_TITLE not in schema.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{schema} exists and is no schema of ours", hint="--force overwrites it")


def write_recipe(recipe: Path, text: str, registry: Registry) -> Path:
    """Write a recipe and its schema; return the schema's path.

    Raises:
        UsageError: when a file cannot be written.
    """
    from demiglace.plugins.schema import recipe_schema

    schema = recipe.with_name(SCHEMA_FILE)
    _write(recipe, text if text.startswith(SCHEMA_LINE) else f"{SCHEMA_LINE}\n{text}")
    _write(schema, json.dumps(recipe_schema(registry), indent=2) + "\n")
    return schema


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
