"""Running a recipe from the command line: where it goes, progress on stderr, the summary."""

from __future__ import annotations

import os
import re
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demiglace.engine.result import Result
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe

_WIDTH = 120  # columns of the summary where no terminal says how many it has


def speaks() -> bool:
    """Whether this process talks to the user: of several, the first."""
    return os.environ.get("RANK", "0") == "0"


def executed(recipe: Recipe, registry: Registry, out: Path | None, *, quiet: bool) -> Result:
    """Run a recipe into a directory, by default a free one under `runs`, and tell its progress.

    Raises:
        DemiglaceError: of the class that tells what is wrong.
    """
    from demiglace.api import run
    from demiglace.cli.progress import progress
    from demiglace.engine.signals import interruptible

    with interruptible() as interrupt, progress(sys.stderr, quiet=quiet or not speaks()) as listener:
        return run(
            recipe,
            out=_free_directory(recipe.name) if out is None else out,
            registry=registry,
            listener=listener,
            check_interrupt=interrupt.check,
        )


def _free_directory(name: str) -> Path:
    """The first of `runs/NAME`, `runs/NAME-2`, ... that is not there; NAME without what paths do not take."""
    stem = re.sub(r"[^\w-]+", "-", name).strip("-") or "run"
    paths = (Path("runs", stem if number == 1 else f"{stem}-{number}") for number in count(1))
    return next(path for path in paths if not path.exists())


def summary(result: Result) -> str:
    """What happened, as text."""
    from rich.console import Console

    from demiglace.report import print_summary

    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with console.capture() as captured:
        print_summary(result, console)
    return captured.get()
