"""The recipes that come with demiglace: every `*.toml` in this folder, found by its name."""

from __future__ import annotations

from pathlib import Path

import demiglace


@demiglace.hookimpl
def demiglace_recipes() -> list[Path]:
    """Where the shipped recipes lie."""
    return [Path(__file__).parent]
