"""Marks in a tree of TOML values where each key, value and table header stands.

The parser gives values without positions. This scanner walks the text that the parser accepted and so
needs to know only where things begin and end, never whether they are right.
"""

from __future__ import annotations

import re

import tomli

from demiglace.recipe.limits import MULTILINE, PART
from demiglace.recipe.text import Span, Text
from demiglace.recipe.tree import Node

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+")
_PART = re.compile(PART)
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# A date and its time may be parted by a blank.
_SCALAR = re.compile(
    rf"""{MULTILINE}|"(?:[^"\\]|\\.)*+"|'[^']*+'|[^\s,\]}}#]+(?: \d\d:[^\s,\]}}#]+)?""", re.DOTALL
)

Key = list[tuple[str, Span]]
"""The parts of a dotted key, each with its span."""


def key_at(source: str, position: int) -> tuple[Key, int]:
    """The dotted key that starts at a position, and where it ends; no parts if none starts there."""
    parts: Key = []
    while match := _PART.match(source, position):
        parts.append((_unquoted(match[0]), match.span()))
        dot = _DOT.match(source, match.end())
        if dot is None:
            return parts, match.end()
        position = dot.end()
    return parts, position


def _unquoted(part: str) -> str:
    if part[0] == '"' and "\\" in part:
        return str(tomli.loads(f"key = {part}")["key"])
    return part[1:-1] if part[0] in "\"'" else part


def mark(root: Node, text: Text) -> None:
    """Set the marks of a tree that holds the values of `text`."""
    root.header = (0, 0)  # what the whole recipe lacks is placed at its beginning
    _Scanner(root, text.source).run()


class _Scanner:
    def __init__(self, root: Node, source: str) -> None:
        self.root = root
        self.source = source
        self.position = 0
        #: The element that each array of tables has come to, by the identity of its node.
        self.element: dict[int, int] = {}

    def run(self) -> None:
        table = self.root
        self._skip()
        while self.position < len(self.source):
            if self.source[self.position] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()

    def _skip(self, count: int = 0) -> None:
        """Go on by `count` characters, then over blanks and comments."""
        match = _BLANK.match(self.source, self.position + count)
        assert match is not None  # noqa: S101  # it matches the empty string
        self.position = match.end()

    def _key(self) -> Key:
        key, self.position = key_at(self.source, self.position)
        return key

    def _header(self) -> Node:
        """`[a.b]` or `[[a.b]]`: the table that the lines below it belong to."""
        start = self.position
        brackets = 2 if self.source.startswith("[[", start) else 1
        self._skip(brackets)
        *parents, (name, span) = self._key()
        node = self._descend(self.root, parents).value[name]
        node.key = node.key or span
        if brackets == 2:
            self.element[id(node)] = self.element.get(id(node), -1) + 1
            node = node.value[self.element[id(node)]]
        self.position = self.source.index("]", self.position) + brackets
        node.header = (start, self.position)
        return node

    def _descend(self, table: Node, key: Key) -> Node:
        for name, span in key:
            table = table.value[name]
            table.key = table.key or span
            if isinstance(table.value, list):
                table = table.value[self.element[id(table)]]
        return table

    def _pair(self, table: Node) -> None:
        """`a.b = value` in a table."""
        *parents, (name, span) = self._key()
        node = self._descend(table, parents).value[name]
        node.key = span
        self.position = self.source.index("=", self.position)
        self._skip(1)
        self._value(node)

    def _value(self, node: Node) -> None:
        start = self.position
        if self.source[start] == "[":
            self._array(node)
        elif self.source[start] == "{":
            self._inline_table(node)
        else:
            match = _SCALAR.match(self.source, start)
            assert match is not None  # noqa: S101  # the parser accepted a value here
            self.position = match.end()
        node.span = (start, self.position)

    def _array(self, node: Node) -> None:
        self._skip(1)
        for child in node.value:
            self._value(child)
            self._skip()
            self._comma()
        self.position += 1

    def _inline_table(self, node: Node) -> None:
        self._skip(1)
        while self.source[self.position] != "}":
            self._pair(node)
            self._skip()
            self._comma()
        self.position += 1

    def _comma(self) -> None:
        if self.source[self.position] == ",":
            self._skip(1)
