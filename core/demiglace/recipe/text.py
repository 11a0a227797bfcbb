"""A text that the user wrote, and the places of its characters."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

from demiglace.errors import Place

Span = tuple[int, int]
"""Start and end of a run of characters, from 0, the end excluded."""


class Text:
    """A recipe file's text (or an override's), able to say where an offset stands."""

    def __init__(self, file: str, source: str) -> None:
        #: File name as the user gave it, or a label such as `--set`.
        self.file = file
        #: The text without a byte-order mark, its lines ended by a bare newline.
        self.source = source
        self._lines: dict[int, str] = {}

    @cached_property
    def _starts(self) -> list[int]:
        """The offset at which each line starts."""
        return [0, *(at + 1 for at, character in enumerate(self.source) if character == "\n")]

    def place(self, start: int, end: int | None = None) -> Place:
        """Where a span stands; one that runs over several lines is cut to its first."""
        line = bisect_right(self._starts, start) - 1
        column = start - self._starts[line]
        text = self._line(line)
        width = min((end or start + 1) - start, len(text) - column)
        return Place(self.file, line + 1, column + 1, text, max(1, width))

    def _line(self, number: int) -> str:
        """One line, kept: a thousand faults on one long line share it."""
        if number not in self._lines:
            start = self._starts[number]
            stop = self.source.find("\n", start)
            self._lines[number] = self.source[start : None if stop < 0 else stop]
        return self._lines[number]
