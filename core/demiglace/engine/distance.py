"""Participants that stand far from their trainer in the file, where a reader takes them for another's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from demiglace.errors import Fault, Place

if TYPE_CHECKING:
    from demiglace.engine.checked import Checked, Step
    from demiglace.recipe import Recipe

FAR = 30
"""More lines from a trainer, or from the participant before, than a table with its comments takes."""


def distant_participants(checked: Checked) -> Iterator[Fault]:
    """What to warn of: participants with another table, or many lines, between them and their trainer.

    TOML gives `[[pass.with]]` to the last `[[pass]]` above it, however far that is.
    """
    for step in checked.steps:
        for before, participant in pairwise((step, *step.participants)):
            fault = _distance(checked.recipe, step, before, participant)
            if fault is not None:
                yield fault


def _distance(recipe: Recipe, trainer: Step, before: Step, participant: Step) -> Fault | None:
    top, upper, lower = (recipe.place(one.path, "header") for one in (trainer, before, participant))
    if top is None or upper is None or lower is None or not top.file == upper.file == lower.file:
        return None
    between = [name for name, place in _tables(recipe, lower.file) if upper.line < place.line < lower.line]
    if not between and lower.line - upper.line <= FAR:
        return None
    where = f", with [{between[0]}] between" if between else ""
    return Fault(
        f"participant {participant.id!r} takes part in {trainer.id!r}, the last [[pass]] above it, "
        f"which stands {lower.line - top.line} lines above (line {top.line}){where}",
        lower,
        "move it right below the [[pass]] that it belongs to",
    )


def _tables(recipe: Recipe, file: str) -> Iterator[tuple[str, Place]]:
    """The recipe's tables other than passes, each with where it begins in a file."""
    for name, value in recipe.resolved().items():
        place = recipe.place((name,), "header") if isinstance(value, dict) and value else None
        if place is not None and place.file == file:
            yield name, place
