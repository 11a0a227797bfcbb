"""`demiglace run`: the whole recipe, and the compressed model on disk."""

from __future__ import annotations

import os
import re
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json
from demiglace.errors import EXIT_GATE_MISSED, EXIT_OK

if TYPE_CHECKING:
    from demiglace.engine.result import Result
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe

_WIDTH = 120  # columns of the summary where no terminal says how many it has


@click.command()
@options.of_recipe
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A new directory for run.json, the log and the model.  [default: runs/NAME]",
)
def command(recipe: Recipe, registry: Registry, as_json: bool, quiet: bool, out: Path | None) -> int:
    """Run RECIPE, a path or recipe:NAME, and save the compressed model.

    Exits with 1 when a gate of the recipe was missed, with 3 when a pass failed.
    """
    from demiglace.api import run
    from demiglace.cli.progress import progress
    from demiglace.engine.signals import interruptible

    speaks = os.environ.get("RANK", "0") == "0"  # of several processes, the first
    with interruptible() as interrupt, progress(sys.stderr, quiet=quiet or not speaks) as listener:
        result = run(
            recipe,
            out=_free_directory(recipe.name) if out is None else out,
            registry=registry,
            listener=listener,
            check_interrupt=interrupt.check,
        )
    if as_json and speaks:
        print_json(result.record.to_json() | {"path": str(result.path)})
    elif not quiet and speaks:
        click.echo(_summary(result), nl=False)
    return EXIT_OK if result.passed else EXIT_GATE_MISSED


def _free_directory(name: str) -> Path:
    """The first of `runs/NAME`, `runs/NAME-2`, ... that is not there; NAME without what paths do not take."""
    stem = re.sub(r"[^\w-]+", "-", name).strip("-") or "run"
    paths = (Path("runs", stem if number == 1 else f"{stem}-{number}") for number in count(1))
    return next(path for path in paths if not path.exists())


def _summary(result: Result) -> str:
    from rich.console import Console

    from demiglace.report import print_summary

    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with console.capture() as captured:
        print_summary(result, console)
    return captured.get()
