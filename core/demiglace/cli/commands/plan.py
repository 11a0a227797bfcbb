"""`demiglace plan`: the recipe in words, checked against the structure of its network."""

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
    """Say in words what RECIPE, a path or recipe:NAME, will do: every step, amount and gate.

    Builds the network without its weights and checks selectors, shapes and optimizers against it.
    """
    from demiglace.engine.plan import plan

    made = plan(recipe, registry)
    if as_json:
        print_json(made.to_json())
    elif not quiet:
        click.echo("\n".join(made.lines()))
        for warning in made.warnings:
            click.echo(f"warning: {warning}", err=True)
