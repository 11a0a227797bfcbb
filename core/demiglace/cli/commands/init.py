"""`demiglace init`: a recipe to start from, and the schema that helps an editor with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from demiglace.cli import options
from demiglace.errors import UsageError

SCHEMA_FILE = "recipe.schema.json"
SCHEMA_TITLE = '"title": "demiglace recipe"'
SCHEMA_LINE = f"#:schema ./{SCHEMA_FILE}"
TEMPLATE = Path(__file__).parent.parent / "template.toml"


@click.command()
@click.argument("name", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write the recipe.  [default: recipe.toml, or NAME.toml]",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@options.no_plugin
def command(name: str | None, out: Path | None, force: bool, block: Sequence[str]) -> None:
    """Write a commented recipe, or a copy of the shipped recipe NAME, with a schema for editors beside it.

    The schema holds the options of the plugins that are installed now: write it again after installing
    others, with `demiglace schema > recipe.schema.json`.
    """
    from demiglace.plugins import discover
    from demiglace.plugins.schema import recipe_schema

    registry = discover(block)
    source = TEMPLATE if name is None else registry.recipe(name)
    target = Path("recipe.toml" if name is None else f"{name}.toml") if out is None else out
    schema = target.with_name(SCHEMA_FILE)
    if not force:
        _refuse_overwriting(target, schema)
    _write(target, _with_schema_line(source.read_text(encoding="utf-8")))
    _write(schema, json.dumps(recipe_schema(registry), indent=2) + "\n")
    click.echo(f"wrote {target} and {schema}; next: demiglace plan {target}")


def _refuse_overwriting(recipe: Path, schema: Path) -> None:
    if recipe.exists():
        raise UsageError(f"{recipe} exists", hint="give another --out, or --force to overwrite it")
    # A schema of ours is only brought up to date.
    if schema.exists() and SCHEMA_TITLE not in schema.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{schema} exists and is no schema of ours", hint="--force overwrites it")


def _with_schema_line(text: str) -> str:
    return text if text.startswith(SCHEMA_LINE) else f"{SCHEMA_LINE}\n{text}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
