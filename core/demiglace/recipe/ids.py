"""Gives an id to each pass and participant that has none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from demiglace.recipe.model import RESERVED_IDS
from demiglace.recipe.tree import Node, Part

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 48


def pass_nodes(recipe: Node) -> Iterator[tuple[tuple[Part, ...], Node]]:
    """Each pass's table with its path, its participants' right after it."""
    return _tables(recipe, "pass", ())


def id_of(step: Node) -> str | None:
    """The id of a pass's table, if it has one."""
    node = step.child("id")
    return node.value if node is not None and isinstance(node.value, str) else None


def give_ids(recipe: Node) -> None:
    """Write an id into each pass's table that has none.

    It is the last part of `use`, with -2, -3, ... for repeats, and does not depend on what comes later,
    except that an id which is written anywhere in the recipe is never given.
    """
    steps = [step for _, step in pass_nodes(recipe)]
    taken = {name for step in steps if (name := id_of(step)) is not None} | RESERVED_IDS
    for step in steps:
        if "id" not in step.value:
            name = _free(_stem(step), taken)
            taken.add(name)
            step.value["id"] = Node(name)


def _tables(holder: Node, key: str, path: tuple[Part, ...]) -> Iterator[tuple[tuple[Part, ...], Node]]:
    held = holder.child(key)
    if held is None or not isinstance(held.value, list):
        return
    for index, node in enumerate(held.value):
        if isinstance(node.value, dict):
            here = (*path, key, index)
            yield here, node
            yield from _tables(node, "with", here)


def _stem(step: Node) -> str:
    use = step.child("use")
    last = str(use.value).rpartition(".")[2] if use is not None else ""
    stem = _NOT_IN_IDS.sub("-", last).strip("-_")[:_LONGEST]
    return stem if stem[:1].isalpha() else f"pass-{stem}".rstrip("-")


def _free(stem: str, taken: frozenset[str] | set[str]) -> str:
    if stem not in taken:
        return stem
    count = 2
    while f"{stem}-{count}" in taken:
        count += 1
    return f"{stem}-{count}"
