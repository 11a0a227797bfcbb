"""Overrides: `dense.epochs=5`, `pass.2.with.0.amount=0.5`, `model.widths=[1,2]`, `seed=3`.

A path begins with the id of a pass or participant, or with a key of the recipe; list indices count from 0.
The value is TOML; a bare word that is none is taken as text. It replaces what stands there, and tables on
the way that are not there yet are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import tomli

from demiglace.errors import Fault, RecipeError
from demiglace.recipe.ids import id_of, pass_nodes
from demiglace.recipe.limits import check_limits
from demiglace.recipe.merge import EXTENDS
from demiglace.recipe.model import Recipe
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.scanner import key_at
from demiglace.recipe.text import Text
from demiglace.recipe.toml import parse_text
from demiglace.recipe.tree import Node, Part
from demiglace.recipe.words import shown

LABEL = "--set"
"""What stands for the file name in the places of overrides."""

_BARE = re.compile(r"[^\s\[{\"'][^\s]*")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")


def override(recipe: Node, assignments: Iterable[str]) -> None:
    """Write overrides into a recipe's tree, in order.

    Raises:
        RecipeError: with a fault for each that is not `path=value` or whose path leads nowhere.
    """
    faults: list[Fault] = []
    for assignment in assignments:
        try:
            _Override(Text(LABEL, assignment)).apply(recipe)
        except RecipeError as error:
            faults += error.faults
    if faults:
        raise RecipeError(faults=faults)


class _Override:
    def __init__(self, text: Text) -> None:
        self.text = text
        try:
            key, end = key_at(text.source, 0)
        except tomli.TOMLDecodeError:  # a wrong escape in a quoted part
            key, end = [], 0
        equals = _EQUALS.match(text.source, end)
        if not key or equals is None:
            raise RecipeError(
                f'"{text.source}" is not path=value',
                place=text.place(0, len(text.source)),
                hint="write --set dense.epochs=5",
            )
        self.names = [name for name, _ in key]
        self.spans = [span for _, span in key]
        self.value_at = equals.end()

    def apply(self, recipe: Node) -> None:
        value = self._value()
        node, depth = self._start(recipe)
        for at in range(depth, len(self.names) - 1):
            node = self._entered(node, at)
        node.value[self._slot(node, len(self.names) - 1)] = value

    def _value(self) -> Node:
        """What stands right of the equals sign, with its marks."""
        check_limits(self.text)
        try:
            node = parse_text(self.text)
        except RecipeError:
            word = _BARE.fullmatch(self.text.source, self.value_at)
            if word is None:
                raise
            node = Node(word[0], self.text)
            node.key, node.span = self.spans[-1], word.span()
            return node
        for name in self.names:
            if len(node.value) > 1:
                raise self._fault(0, "one override sets one value", "write --set once for each")
            node = node.value[name]
        return node

    def _start(self, recipe: Node) -> tuple[Node, int]:
        """The node where the path begins, and how many of its parts that took."""
        first = self.names[0]
        steps = {name: step for _, step in pass_nodes(recipe) if (name := id_of(step)) is not None}
        if first in steps and len(self.names) > 1:
            return steps[first], 1
        if first in steps:
            raise self._fault(0, f"{first} is a pass", f"say which option: {first}.epochs=5")
        if first == EXTENDS:
            raise self._fault(0, "extends cannot be overridden", "write it in the recipe")
        known = Recipe.key_names()
        if first not in known:
            hint = did_you_mean(first, [*steps, *known])
            raise self._fault(0, f"there is no pass and no table {first}", hint)
        return recipe, 0

    def _entered(self, node: Node, at: int) -> Node:
        """The child under one part of the path, made if it is a table's and not there."""
        slot = self._slot(node, at)
        if isinstance(slot, str) and slot not in node.value:
            made = node.value[slot] = Node({}, self.text)
            made.key = self.spans[at]
        child: Node = node.value[slot]
        return child

    def _slot(self, node: Node, at: int) -> Part:
        """The key or index under which one part of the path stands in a node."""
        above = ".".join(self.names[:at])
        if isinstance(node.value, dict):
            return self.names[at]
        if not isinstance(node.value, list):
            raise self._fault(
                at, f"{above} is {shown(node.value)}, not a table", f"set it whole: {above}=..."
            )
        count, name = len(node.value), self.names[at]
        if name.isdecimal() and int(name) < count:
            return int(name)
        hint = f"indices count from 0 to {count - 1}" if count else f"set it whole: {above}=[...]"
        if name in map(id_of, node.value):
            hint = f"begin with the id: {'.'.join(self.names[at:])}=..."
        raise self._fault(at, f"{above} is a list of {count}; {name} is no index of it", hint)

    def _fault(self, at: int, message: str, hint: str | None) -> RecipeError:
        return RecipeError(message, place=self.text.place(*self.spans[at]), hint=hint)
