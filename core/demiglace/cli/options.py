"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

Command = Callable[..., int | None]

no_plugin = click.option(
    "--no-plugin", "block", multiple=True, metavar="NAME", help="Leave out a plugin; may be repeated."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")

overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the recipe, such as dense.epochs=5; may be repeated.",
)
allow_code = click.option(
    "--allow-code",
    "code",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Let the recipe run Python code from this file or folder; may be repeated.",
)
force = click.option("--force", is_flag=True, help="Overwrite files that are there.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
out = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A new directory for run.json, the log and the model.  [default: runs/NAME]",
)

_RECIPE_OPTIONS = (
    click.argument("recipe", metavar="RECIPE"),
    overrides,
    no_plugin,
    allow_code,
    as_json,
    quiet,
)


def of_recipe(command: Command) -> Command:
    """Gives a command what all have that read a recipe, and calls it with the loaded recipe and registry."""

    @wraps(command)
    def opened(
        recipe: str, overrides: Sequence[str], block: Sequence[str], code: Sequence[Path], **given: Any
    ) -> int | None:
        from demiglace.passes import allowing_code
        from demiglace.plugins import discover
        from demiglace.recipe import load_recipe

        registry = discover(block)
        with allowing_code(code):
            return command(load_recipe(recipe, overrides=overrides, find=registry.recipe), registry, **given)

    for decorate in reversed(_RECIPE_OPTIONS):
        opened = decorate(opened)
    return opened
