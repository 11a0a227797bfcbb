"""What must hold in a recipe beyond what the models say of each table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, time

from demiglace.errors import Fault
from demiglace.recipe.ids import id_of, pass_nodes
from demiglace.recipe.model import ORIGINAL
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.tree import Node
from demiglace.recipe.validation import dotted

ROLES = ("teacher", "student")
"""The tables that may hold a recipe of their own."""

_PLAIN = (dict, list, bool, int, float, str, date, time)


def value_faults(recipe: Node) -> Iterator[Fault]:
    """NaN, infinity and what is no plain data, wherever they stand: no option can want them."""
    for path, node in recipe.walk():
        value = node.value
        if not isinstance(value, _PLAIN):
            yield Fault(f"{dotted(path)} must be plain data, not {type(value).__name__}")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Fault(f"{dotted(path)} must be a finite number, not {value}", recipe.place(path))


def structure_faults(recipe: Node) -> Iterator[Fault]:
    """Ids used twice, participants of participants, gates that compare with no pass; nested recipes' too."""
    yield from _ids_used_twice(recipe)
    yield from _nested_participants(recipe)
    yield from _lost_comparisons(recipe)
    for role in ROLES:
        table = recipe.child(role)
        nested = table.child("recipe") if table is not None else None
        if nested is not None:
            yield from structure_faults(nested)


def _ids_used_twice(recipe: Node) -> Iterator[Fault]:
    first: dict[str, Node] = {}
    for path, step in pass_nodes(recipe):
        name = id_of(step)
        if name is None or first.setdefault(name, step) is step:
            continue
        place = first[name].place(("id",))
        message = f'{dotted(path)}: the id "{name}" is taken already' + (f" at {place}" if place else "")
        yield Fault(message, step.place(("id",)), "each pass and participant needs an id of its own")


def _nested_participants(recipe: Node) -> Iterator[Fault]:
    for path, step in pass_nodes(recipe):
        inner = step.child("with")
        if "with" in path and inner is not None and inner.value:
            message = f"{dotted(path)} takes part in a training pass and cannot have participants itself"
            yield Fault(message, step.place(("with",), "key"), "put it under the training pass")


def _lost_comparisons(recipe: Node) -> Iterator[Fault]:
    gates = recipe.child("gate")
    if gates is None or not isinstance(gates.value, dict):
        return
    steps = [id_of(step) or "" for path, step in pass_nodes(recipe) if "with" not in path]
    for metric, gate in gates.value.items():
        against = gate.child("against")
        if against is None or not isinstance(against.value, str) or against.value in {*steps, ORIGINAL}:
            continue
        message = f'gate.{metric}.against: there is no pass "{against.value}"'
        hint = did_you_mean(against.value, [*steps, ORIGINAL], "ids")
        yield Fault(message, gate.place(("against",)), hint)
