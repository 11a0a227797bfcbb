"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

recipe = click.argument("recipe", metavar="RECIPE")
"""A path, or `recipe:NAME` for a shipped recipe."""

overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the recipe, such as dense.epochs=5; may be repeated.",
)
no_plugin = click.option(
    "--no-plugin", "block", multiple=True, metavar="NAME", help="Leave out a plugin; may be repeated."
)
allow_code = click.option(
    "--allow-code",
    "code",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Let the recipe load Python code from this file or folder; may be repeated.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print errors only.")


def of_recipe(function: F) -> F:
    """What every command takes that reads a recipe."""
    for decorate in (quiet, as_json, allow_code, no_plugin, overrides, recipe):
        function = decorate(function)
    return function
