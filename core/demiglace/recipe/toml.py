"""TOML text to a tree of values with places; everything that is wrong with a file or its text."""

from __future__ import annotations

import os
from pathlib import Path

import tomli

from demiglace.errors import Place, RecipeError
from demiglace.recipe.limits import MAX_BYTES, check_limits
from demiglace.recipe.nearest import nearest
from demiglace.recipe.scanner import mark
from demiglace.recipe.syntax import syntax_fault
from demiglace.recipe.text import Text
from demiglace.recipe.tree import Node

_BOM = "\ufeff"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_recipe(path: Path, asked_at: Place | None = None) -> Node:
    """The tree of a recipe file.

    Args:
        path: shown in errors as it is.
        asked_at: where another recipe names this file, for errors about the file itself.

    Raises:
        RecipeError: the file cannot be read, or what it holds is no TOML or no recipe at all.
    """
    return parse(_read(path, asked_at), str(path))


def parse(raw: bytes | str, file: str) -> Node:
    """The tree of a recipe's text.

    Raises:
        RecipeError: not UTF-8, too large, too deep, not TOML, or empty.
    """
    if len(raw) > MAX_BYTES:
        raise RecipeError(
            f"{file} is larger than 1 MiB, the limit for a recipe",
            hint="is it a recipe? A model or data set is named in a recipe, not held by it",
        )
    source = _decoded(raw, file) if isinstance(raw, bytes) else raw
    root = parse_text(Text(file, source.removeprefix(_BOM).replace("\r\n", "\n")))
    if not root.value:
        raise RecipeError(
            f"{file} is empty", hint="`demiglace init` writes a recipe with comments to begin from"
        )
    return root


def parse_text(text: Text) -> Node:
    """The marked tree of a TOML text.

    Raises:
        RecipeError: past a limit, or not TOML.
    """
    check_limits(text)
    try:
        data = tomli.loads(text.source)
    except tomli.TOMLDecodeError as error:
        raise RecipeError(faults=[syntax_fault(error, text)]) from None
    root = Node.of(data, text)
    mark(root, text)
    return root


def _decoded(raw: bytes, file: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        shown = Text(file, before + raw[error.start : error.start + 80].decode(errors="replace"))
        saved_as = "UTF-16" if raw.startswith(_UTF16) else "another encoding"
        raise RecipeError(
            f"not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}",
            place=shown.place(len(before)),
            hint=f"the file seems to be saved as {saved_as}; save it as UTF-8",
        ) from None


def _read(path: Path, asked_at: Place | None) -> bytes:
    """At most one byte more than the limit."""
    try:
        if path.is_dir():
            raise RecipeError(f"{path} is a directory, not a recipe", place=asked_at, hint=_recipes_in(path))
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path} is not a regular file", place=asked_at)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError(f"there is no file {path}", place=asked_at, hint=_near(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"{path} cannot be read: {reason}", place=asked_at) from None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".toml"))
    except OSError:
        return []


def _recipes_in(folder: Path) -> str | None:
    names = _names(folder)[:3]
    return f"name one of its recipes, such as {folder / names[0]}" if names else None


def _near(path: Path) -> str | None:
    """The files of like name beside a missing one."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    near = nearest(path.stem, (Path(name).stem for name in _names(path.parent)))
    return f"did you mean {' or '.join(f'{path.with_name(stem)}.toml' for stem in near)}?" if near else None
