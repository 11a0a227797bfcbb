"""Merges a recipe into the one that it extends: tables by key, passes by id.

- A table is merged key by key; any other value, lists included, takes the place of the base's.
- A table with another `use` or `recipe` (or `name`, if it has neither) starts afresh: the base's options were
  not for it.
- A pass whose id the base has (given or generated) is merged into it; any other is appended.
- `before = "<id>"` or `after = "<id>"` says where a pass goes instead; `remove = true` takes the base's out.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from demiglace.errors import Fault, RecipeError
from demiglace.recipe.ids import id_of
from demiglace.recipe.model import Table
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.tree import Node
from demiglace.recipe.validation import validate

EXTENDS = "extends"
_BY_ID = ("pass", "with")


class Placement(Table):
    """Keys of a `[[pass]]` that say what becomes of it where its recipe extends another."""

    remove: bool = False
    """Take the base's pass of this id out."""
    before: str | None = None
    """The id of the pass that this one goes before."""
    after: str | None = None
    """The id of the pass that this one goes after."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.remove + (self.before is not None) + (self.after is not None) > 1:
            raise ValueError("only one of remove, before and after has a meaning")
        return self


_PLACING = frozenset(Placement.key_names())


def merge(base: Node, overlay: Node) -> Node:
    """A new recipe: `base` with `overlay` over it; neither is changed.

    Raises:
        RecipeError: with a fault for each `remove`, `before` and `after` that cannot be done.
    """
    faults: list[Fault] = []
    merged = _merged_tables(base, overlay, faults)
    merged.value.pop(EXTENDS, None)
    if faults:
        raise RecipeError(faults=faults)
    return merged


def _merged(base: Node | None, overlay: Node, key: str, faults: list[Fault]) -> Node:
    if key in _BY_ID and isinstance(overlay.value, list):
        return _merged_passes(base, overlay, faults)
    if not isinstance(overlay.value, dict):
        return overlay
    if base is None or not isinstance(base.value, dict) or _names_another(base, overlay):
        base = Node({})
    return _merged_tables(base, overlay, faults)


def _names_another(base: Node, overlay: Node) -> bool:
    """Whether a table is now about another pass, source or, where it is about neither, another name."""
    keys = ("use", "recipe") if base.child("use") or base.child("recipe") else ("name",)
    given = {key: node.plain() for key in keys if (node := overlay.child(key)) is not None}
    held = {key: node.plain() for key in given if (node := base.child(key)) is not None}
    return given != held


def _merged_tables(base: Node, overlay: Node, faults: list[Fault]) -> Node:
    merged = (overlay if overlay.text is not None else base).with_value(dict(base.value))
    for key, node in overlay.value.items():
        merged.value[key] = _merged(base.value.get(key), node, key, faults)
    return merged


def _merged_passes(base: Node | None, overlay: Node, faults: list[Fault]) -> Node:
    held = list(base.value) if base is not None and isinstance(base.value, list) else []
    result = _Passes(held, faults)
    for step in overlay.value:
        result.add(step)
    return overlay.with_value(result.steps)


class _Passes:
    """The base's passes, with an overlay's going in one by one."""

    def __init__(self, steps: list[Node], faults: list[Fault]) -> None:
        self.steps = steps
        self.faults = faults
        #: The base's passes that the overlay has not named yet; a second naming is a duplicate id.
        self.open = {name for step in steps if (name := id_of(step)) is not None}

    def add(self, step: Node) -> None:
        if not isinstance(step.value, dict):
            self.steps.append(step)  # the validation says what is wrong with it
            return
        placement = self._placement(step)
        name = id_of(step)
        held = self._index(name) if name in self.open else None
        if placement.remove:
            self._remove(step, name, held)
            return
        own = step.with_value({key: node for key, node in step.value.items() if key not in _PLACING})
        merged = _merged(None if held is None else self.steps[held], own, "", self.faults)
        if held is None:
            self.steps.append(merged)
        else:
            self.open.discard(str(name))
            self.steps[held] = merged
        self._move(merged, placement, step)

    def _placement(self, step: Node) -> Placement:
        keys = {key: node.plain() for key, node in step.value.items() if key in _PLACING}
        if not keys:
            return Placement()
        try:
            return validate(Placement, keys, place=step.place)
        except RecipeError as error:
            self.faults += error.faults
            return Placement()

    def _index(self, name: str | None) -> int | None:
        return next(
            (at for at, step in enumerate(self.steps) if name is not None and id_of(step) == name), None
        )

    def _remove(self, step: Node, name: str | None, held: int | None) -> None:
        if held is not None:
            self.open.discard(str(name))
            del self.steps[held]
            return
        known = [one for other in self.steps if (one := id_of(other)) is not None]
        message = f'there is no pass "{name}" to remove' if name else "remove needs the id of a pass"
        hint = did_you_mean(name or "", known, "the base's passes") or "this recipe extends none with passes"
        self.faults.append(Fault(message, step.place(("id",) if name else ("remove",)), hint))

    def _move(self, step: Node, placement: Placement, written: Node) -> None:
        key = "before" if placement.before is not None else "after"
        target = placement.before if placement.before is not None else placement.after
        if target is None:
            return
        self.steps.remove(step)
        index = self._index(target)
        if index is None:
            known = [name for other in self.steps if (name := id_of(other)) is not None]
            hint = did_you_mean(target, known, "passes")
            self.faults.append(Fault(f'there is no pass "{target}"', written.place((key,)), hint))
            return
        self.steps.insert(index + (key == "after"), step)
