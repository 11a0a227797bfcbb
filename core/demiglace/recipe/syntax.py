"""What is wrong with a text that is not TOML, and what to do about it, for a person."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from demiglace.errors import Fault, Place
from demiglace.recipe.text import Text

if TYPE_CHECKING:
    import tomli

_WORD = re.compile(r"[^\s,\]}#]+")
_TWICE = ("Cannot", "Duplicate")

# How the parser's message begins, what we say, what to do.
_KNOWN = (
    ("Cannot declare", "this table is defined twice", "one of several has two brackets: [[pass]]"),
    (
        "Cannot overwrite",
        "this is defined twice",
        "keep one; a table that repeats has two brackets: [[pass]]",
    ),
    ("Duplicate", "this key is defined twice", "keep one of the two"),
    ("Cannot", "this table was finished further up", "put its keys where the table first stands"),
    ("Expected '='", "a key needs `=` and a value", "write `key = value`"),
    ("Invalid initial", "a key is missing here", "write `key = value`"),
    ("Invalid statement", "no line can begin like this", "write `key = value`, [table] or [[pass]]"),
    ("Unclosed array", "the array is not closed", "part its values by commas and close it with ]"),
    ("Unclosed inline", "the inline table is not closed", "part its keys by commas and close it with }"),
    ("Expected ']", "the table header is not closed", "write [table], or [[pass]] for one of several"),
    ("Illegal character '\\n'", "the string is not closed", "close the quote on the same line"),
    ("Unterminated", "the string is not closed", "close the quote"),
    ("Expected \"'", "the string is not closed", "close the quote on the same line"),
    ("Unescaped", "a backslash in double quotes starts an escape", r"use single quotes: 're:layer\d+'"),
    ("Invalid hex", "the escape in the string is not complete", "write four or eight hex digits"),
    ("Expected newline", "the line goes on after its value", "write one `key = value` a line; quote text"),
    ("Found invalid", "a control character stands in the text", "delete it, or write it as an escape"),
    ("Illegal", "a control character stands in the text", "delete it, or write it as an escape"),
    ("Invalid date", "there is no such date or time", "quote it if it is text"),
)
_WORDS = {
    "true": "write true",
    "false": "write false",
    "none": "TOML has no empty value: leave the key out",
    "null": "TOML has no empty value: leave the key out",
}


def syntax_fault(error: tomli.TOMLDecodeError, text: Text) -> Fault:
    """The parser's error as a fault with place, words and a hint."""
    at = min(error.pos, len(text.source))
    if error.msg.startswith("Invalid value"):
        return _bad_value(text, at)
    for beginning, message, hint in _KNOWN:
        if error.msg.startswith(beginning):
            return Fault(f"not valid TOML: {message}", _place(beginning, text, at), hint)
    return Fault(f"not valid TOML: {error.msg}", text.place(at))


def _place(beginning: str, text: Text, at: int) -> Place:
    """What the parser's position is about: it sees an escape or a repetition only when past it."""
    if beginning == "Unescaped":
        return text.place(at - 2, at)
    return _line_before(text, at) if beginning.startswith(_TWICE) else text.place(at)


def _bad_value(text: Text, at: int) -> Fault:
    match = _WORD.match(text.source, at)
    if match is None:
        return Fault("not valid TOML: a value is missing", text.place(at), "write `key = value`")
    hint = _WORDS.get(match[0].lower(), f'text stands in quotes: "{match[0]}"')
    return Fault(f"not valid TOML: {match[0]} is not a value", text.place(*match.span()), hint)


def _line_before(text: Text, at: int) -> Place:
    """What stands on the line up to `at`."""
    start = text.source.rfind("\n", 0, at) + 1
    while start < at and text.source[start] in " \t":
        start += 1
    return text.place(start, max(at, start + 1))
