"""`demiglace check`: everything about a recipe that can be known without torch."""

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
    """Check RECIPE, a path or recipe:NAME: syntax, names, options, contracts and order.

    Imports no torch and reads no data; `demiglace plan` also checks against the network.
    """
    from demiglace.engine.check import check
    from demiglace.plugins import discover
    from demiglace.recipe import load_recipe

    registry = discover(block)
    checked = check(load_recipe(recipe, overrides=overrides, find=registry.recipe), registry)
    steps = [step.id for step in checked.steps]
    if as_json:
        print_json({"name": checked.recipe.name, "steps": steps, "errors": []})
    elif not quiet:
        click.echo(f"{recipe}: nothing wrong in {len(steps)} {'step' if len(steps) == 1 else 'steps'}")
