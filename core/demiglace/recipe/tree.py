"""A recipe's values as a tree in which each knows where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from demiglace.errors import Place, RecipeError
from demiglace.recipe.text import Span, Text

Part = str | int
"""One step of a path: a table's key or a list's index."""
Of = Literal["value", "key", "header"]
"""What of a thing a place points at."""

MAX_DEPTH = 32
"""The most tables and lists inside one another."""

_PREFERRED: Mapping[Of, tuple[str, ...]] = {
    "value": ("span", "header", "key"),
    "key": ("key", "header", "span"),
    "header": ("header", "key", "span"),
}


class Node:
    """A value with its marks; tables and lists hold nodes."""

    __slots__ = ("header", "key", "span", "text", "value")

    def __init__(self, value: Any, text: Text | None = None) -> None:
        #: A dict of nodes, a list of nodes, or a plain value.
        self.value = value
        #: Where it was written; `None` for what came from Python or was generated.
        self.text = text
        self.key: Span | None = None
        self.span: Span | None = None
        #: The `[table]` or `[[array]]` line's brackets.
        self.header: Span | None = None

    @classmethod
    def of(cls, data: object, text: Text | None = None, depth: int = 0) -> Node:
        """A tree from plain data, without marks; a key that holds `None` counts as absent.

        Raises:
            RecipeError: nested more than `MAX_DEPTH` deep, as data that holds itself is.
        """
        if depth > MAX_DEPTH:
            raise RecipeError(f"tables and lists are nested more than {MAX_DEPTH} deep")
        if isinstance(data, Mapping):
            given = ((str(key), value) for key, value in data.items() if value is not None)
            return cls({key: cls.of(value, text, depth + 1) for key, value in given}, text)
        if isinstance(data, list | tuple):
            return cls([cls.of(value, text, depth + 1) for value in data], text)
        return cls(data, text)

    def copy(self) -> Node:
        """The same values and marks in nodes of their own."""
        value = self.value
        if isinstance(value, dict):
            value = {key: node.copy() for key, node in value.items()}
        elif isinstance(value, list):
            value = [node.copy() for node in value]
        return self.with_value(value)

    def with_value(self, value: Any) -> Node:
        """Another value with the marks of this one."""
        node = Node(value, self.text)
        node.key, node.span, node.header = self.key, self.span, self.header
        return node

    def plain(self) -> Any:
        """The values without their places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, part: Part) -> Node | None:
        """What stands under a key or an index, if anything does."""
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None

    def walk(self, path: tuple[Part, ...] = ()) -> Iterator[tuple[tuple[Part, ...], Node]]:
        """Every node with its path, this one first."""
        yield path, self
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.walk((*path, index))

    def place(self, path: Sequence[Part] = (), of: Of = "value") -> Place | None:
        """Where the thing at a path was written; if nothing is there, the header of what should hold it."""
        node, place = self, self._at("header" if path else of)
        for depth, part in enumerate(path, 1):
            child = node.child(part)
            if child is None:
                break
            node, place = child, child._at(of if depth == len(path) else "header") or place
        return place

    def _at(self, of: Of) -> Place | None:
        if self.text is None:
            return None
        spans = (getattr(self, mark) for mark in _PREFERRED[of])
        found = next((span for span in spans if span is not None), None)
        return self.text.place(*found) if found is not None else None
