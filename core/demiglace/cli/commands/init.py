"""`demiglace init`: a recipe to start from, and the schema that helps an editor with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from demiglace.cli import options
from demiglace.cli.recipe_file import refuse_overwriting, write_recipe

TEMPLATE = Path(__file__).parent.parent / "template.toml"


@click.command()
@click.argument("name", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write the recipe.  [default: recipe.toml, or NAME.toml]",
)
@options.force
@options.no_plugin
def command(name: str | None, out: Path | None, force: bool, block: Sequence[str]) -> None:
    """Write a commented recipe, or a copy of the shipped recipe NAME, with a schema for editors beside it.

    The schema holds the options of the plugins that are installed now: write it again after installing
    others, with `demiglace schema > recipe.schema.json`.
    """
    from demiglace.plugins import discover

    registry = discover(block)
    source = TEMPLATE if name is None else registry.recipe(name)
    target = Path("recipe.toml" if name is None else f"{name}.toml") if out is None else out
    if not force:
        refuse_overwriting(target)
    schema = write_recipe(target, source.read_text(encoding="utf-8"), registry)
    click.echo(f"wrote {target} and {schema}; next: demiglace plan {target}")
