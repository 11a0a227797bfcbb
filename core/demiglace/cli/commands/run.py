"""`demiglace run`: the whole recipe, and the compressed model on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json
from demiglace.errors import EXIT_GATE_MISSED, EXIT_OK

if TYPE_CHECKING:
    from demiglace.engine.result import Result
    from demiglace.recipe import Recipe


@click.command()
@options.of_recipe
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A new directory for run.json, the log and the model.  [default: runs/NAME]",
)
def command(
    recipe: str,
    overrides: Sequence[str],
    block: Sequence[str],
    code: Sequence[Path],
    as_json: bool,
    quiet: bool,
    out: Path | None,
) -> int:
    """Run RECIPE, a path or recipe:NAME, and save the compressed model.

    Exits with 1 when a gate of the recipe was missed, with 3 when a pass failed.
    """
    from demiglace.api import run
    from demiglace.cli.progress import progress
    from demiglace.engine.signals import interruptible
    from demiglace.plugins import discover
    from demiglace.recipe import load_recipe

    registry = discover(block)
    loaded = load_recipe(recipe, overrides=overrides, find=registry.recipe)
    with interruptible() as interrupt, progress(sys.stderr, quiet=quiet) as listener:
        result = run(
            loaded,
            out=_directory(loaded) if out is None else out,
            registry=registry,
            listener=listener,
            check_interrupt=interrupt.check,
        )
    _tell(result, as_json, quiet)
    return EXIT_OK if result.passed else EXIT_GATE_MISSED


def _directory(recipe: Recipe) -> Path:
    """The first of `runs/NAME`, `runs/NAME-2`, ... that is not there."""
    names = (recipe.name if number == 1 else f"{recipe.name}-{number}" for number in count(1))
    return next(path for path in (Path("runs", name) for name in names) if not path.exists())


def _tell(result: Result, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(result.record.to_json() | {"path": str(result.path)})
        return
    if quiet:
        return
    from rich.console import Console

    from demiglace.report import print_summary

    print_summary(result, Console())
