"""`demiglace plan`: the recipe in words, checked against the structure of its network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from demiglace.cli import options
from demiglace.cli.output import print_json


@click.command()
@options.of_recipe
def command(
    recipe: str,
    overrides: Sequence[str],
    block: Sequence[str],
    code: Sequence[Path],
    as_json: bool,
    quiet: bool,
) -> None:
    """Say in words what RECIPE, a path or recipe:NAME, will do: every step, amount and gate.

    Builds the network without its weights and checks selectors, shapes and optimizers against it.
    """
    from demiglace.engine.plan import plan
    from demiglace.plugins import discover
    from demiglace.recipe import load_recipe

    registry = discover(block)
    made = plan(load_recipe(recipe, overrides=overrides, find=registry.recipe), registry)
    if as_json:
        print_json(made.to_json())
    elif not quiet:
        click.echo("\n".join(made.lines()))
