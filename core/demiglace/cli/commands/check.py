"""`demiglace check`: everything about a recipe that can be known without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json

if TYPE_CHECKING:
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe


@click.command()
@options.of_recipe
def command(recipe: Recipe, registry: Registry, as_json: bool, quiet: bool) -> None:
    """Check RECIPE, a path or recipe:NAME: syntax, names, options, contracts and order.

    Imports no torch and reads no data; `demiglace plan` also checks against the network.
    """
    from demiglace.engine.check import check

    steps = [step.id for step in check(recipe, registry).steps]
    if as_json:
        print_json({"name": recipe.name, "steps": steps, "errors": []})
    elif not quiet:
        click.echo(f"{recipe.name}: nothing wrong in {len(steps)} {'step' if len(steps) == 1 else 'steps'}")
