"""A recipe as TOML text."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from demiglace.recipe.model import Recipe

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_REPEATED = ("pass", "with")
_WIDTH = 110  # of a comment


def dumps(recipe: Recipe) -> str:
    """The whole recipe, every default of the envelope written out; loads to an equal recipe."""
    return written(recipe.resolved())


def written(tables: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """A recipe's tables as TOML text.

    Args:
        tables: of the same form as a recipe.
        comments: what to say above a table, by its place: `model`, `pass.0`, `pass.0.with.1`; above
            everything by the empty place.
    """
    said = comments or {}
    top = {key: value for key, value in tables.items() if not _is_table(key, value)}
    blocks = ["\n".join([*_comment(said.get("")), *_block(None, None, top)])]
    for key, value in tables.items():
        if _is_table(key, value):
            blocks += _tables(key, key, key, value, said)
    return "\n\n".join(blocks) + "\n"


def _is_table(key: str, value: object) -> bool:
    return isinstance(value, Mapping) or key in _REPEATED


def _tables(key: str, path: str, place: str, value: Any, said: Mapping[str, str]) -> Iterator[str]:
    """The blocks of `[path]`, or of each `[[path]]` with its participants after it."""
    if key not in _REPEATED:
        yield "\n".join([*_comment(said.get(place)), *_block(f"[{path}]", None, value)])
        return
    for index, table in enumerate(value):
        at = f"{place}.{index}"
        yield "\n".join([*_comment(said.get(at)), *_block(f"[[{path}]]", "with", table)])
        yield from _tables("with", f"{path}.with", f"{at}.with", table.get("with", []), said)


def _comment(text: str | None) -> list[str]:
    return textwrap.wrap(text or "", _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _block(header: str | None, without: str | None, table: Mapping[str, Any]) -> Iterator[str]:
    if header is not None:
        yield header
    for key, value in table.items():
        if key != without:
            yield f"{_key(key)} = {_inline(value)}"


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {_inline(held)}" for key, held in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the one control character that JSON lets pass."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
