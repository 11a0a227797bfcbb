"""The command line. One command is one module of `commands`, imported only when it is called."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `demiglace` with these arguments, by default the process's; return the exit code."""
    from demiglace.cli.boundary import guarded

    return guarded(arguments)


__all__ = ["main"]
