"""`demiglace run`: the whole recipe, and the compressed model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json
from demiglace.errors import EXIT_GATE_MISSED, EXIT_OK

if TYPE_CHECKING:
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe


@click.command()
@options.of_recipe
@options.out
def command(recipe: Recipe, registry: Registry, as_json: bool, quiet: bool, out: Path | None) -> int:
    """Run RECIPE, a path or recipe:NAME, and save the compressed model.

    Exits with 1 when a gate of the recipe was missed, with 3 when a pass failed.
    """
    from demiglace.cli.running import executed, speaks, summary

    result = executed(recipe, registry, out, quiet=quiet)
    if as_json and speaks():
        print_json(result.record.to_json() | {"path": str(result.path)})
    elif not quiet and speaks():
        click.echo(summary(result), nl=False)
    return EXIT_OK if result.passed else EXIT_GATE_MISSED
