"""What a recipe's text may not be, found in one pass before the parser sees it.

A TOML parser needs seconds and hundreds of megabytes for small texts of the wrong kind: a key of ten
thousand dotted parts, arrays nested by the hundred. No recipe needs any of that.
"""

from __future__ import annotations

import re

from demiglace.errors import RecipeError
from demiglace.recipe.text import Text
from demiglace.recipe.tree import MAX_DEPTH

MAX_BYTES = 1 << 20
"""The largest recipe file: 1 MiB."""
MAX_KEY_PARTS = 16
"""The most dotted parts of one key."""
MAX_WORD = 256
"""The most characters of a bare key or a number."""
MAX_VALUES = 100_000
"""The most keys and values together."""

PART = r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\[^\n])*+"?|'[^'\n]*+'?"""
"""One part of a key (a bare word, a quoted one), as a regular expression; also takes strings and numbers."""
MULTILINE = r""""{3}(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5})?|'{3}(?:[^']|'(?!''))*+(?:'{3,5})?"""
"""A string in three quotes, as a regular expression; its content may end in two more."""

_PART = re.compile(PART)
_RUN = rf"(?P<run>(?:{PART})(?:[ \t]*\.[ \t]*(?:{PART}))*)"
_TOKEN = re.compile(rf"#[^\n]*|{MULTILINE}|{_RUN}|(?P<open>[\[{{])|(?P<close>[\]}}])", re.DOTALL)


def check_limits(text: Text) -> None:
    """Refuse a text that would make the parser suffer.

    Raises:
        RecipeError: at the place where the first limit is passed.
    """
    depth = values = 0
    for token in _TOKEN.finditer(text.source):
        kind = token.lastgroup
        if kind == "close":
            depth = max(0, depth - 1)
            continue
        values += 1
        if kind == "open":
            depth += 1
        elif kind == "run" and token.end() - token.start() >= 2 * MAX_KEY_PARTS:
            _check_run(text, token)
        if depth > MAX_DEPTH:
            _refuse(text, token, f"brackets are nested more than {MAX_DEPTH} deep")
        if values > MAX_VALUES:
            _refuse(text, token, f"there are more than {MAX_VALUES:,} keys and values")


def _check_run(text: Text, token: re.Match[str]) -> None:
    parts = _PART.findall(token[0])
    if len(parts) > MAX_KEY_PARTS:
        _refuse(text, token, f"a key has {len(parts):,} dotted parts; at most {MAX_KEY_PARTS} are allowed")
    longest = max((len(part) for part in parts if part[0] not in "\"'"), default=0)
    if longest > MAX_WORD:
        _refuse(text, token, f"a key or number has {longest:,} characters; at most {MAX_WORD} are allowed")


def _refuse(text: Text, token: re.Match[str], message: str) -> None:
    raise RecipeError(
        message, place=text.place(*token.span()), hint="no recipe needs this; is the file a recipe?"
    )
