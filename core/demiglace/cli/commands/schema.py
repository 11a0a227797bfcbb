"""`demiglace schema`: for completion and checks in editors."""

from __future__ import annotations

from collections.abc import Sequence

import click

from demiglace.cli import options
from demiglace.cli.output import print_json


@click.command()
@options.no_plugin
def command(block: Sequence[str]) -> None:
    """Print the JSON Schema (draft-07) of recipes with the options of every installed plugin.

    An editor with a TOML language server uses it when a recipe's first line is
    `#:schema ./recipe.schema.json`; `demiglace init` writes both files.
    """
    from demiglace.plugins import discover
    from demiglace.plugins.schema import recipe_schema

    print_json(recipe_schema(discover(block)))
