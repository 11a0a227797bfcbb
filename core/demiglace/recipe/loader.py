"""A recipe from a file, a dict or another recipe: extended, overridden, validated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from demiglace.errors import DemiglaceError, Fault, RecipeError
from demiglace.recipe.checks import ROLES, structure_faults, value_faults
from demiglace.recipe.ids import give_ids
from demiglace.recipe.merge import EXTENDS, merge
from demiglace.recipe.model import Recipe
from demiglace.recipe.overrides import override
from demiglace.recipe.toml import read_recipe
from demiglace.recipe.tree import Node
from demiglace.recipe.validation import in_order, validate

Find = Callable[[str], Path]
"""The file of a shipped recipe by its name."""

SHIPPED = "recipe:"
"""What begins the name of a shipped recipe where a path could stand."""

MAX_FILES = 100
"""The most files that one recipe may be put together from, each counted as often as it is read."""


def load_recipe(
    source: str | Path | Mapping[str, object] | Recipe,
    *,
    overrides: Sequence[str] = (),
    find: Find | None = None,
) -> Recipe:
    """The validated recipe with everything that it extends merged in and the overrides applied.

    Args:
        source: a path, `recipe:NAME` for a shipped one, a dict of the same shape as the TOML, or a recipe.
        overrides: `path=value` each, applied in order before the validation.
        find: the file of a shipped recipe by name; raises a `DemiglaceError` for an unknown one.

    Raises:
        RecipeError: with every fault of the first stage that finds any: reading and TOML, `extends`,
            overrides, values, then the envelope.
    """
    if isinstance(source, Recipe) and not overrides:
        return source
    loader = _Loader(find)
    tree = loader.load(source)
    override(tree, overrides)
    loader.nest(tree)
    give_ids(tree)
    return _validated(tree)


def _validated(tree: Node) -> Recipe:
    if faults := list(value_faults(tree)):
        raise RecipeError(faults=faults)
    faults = list(structure_faults(tree))
    try:
        recipe = validate(Recipe, tree.plain(), place=tree.place)
    except RecipeError as error:
        raise RecipeError(faults=in_order([*error.faults, *faults])) from None
    if faults:
        raise RecipeError(faults=faults)
    recipe._tree = tree
    return recipe


class _Loader:
    """Follows `extends` and nested recipes from file to file, never in a circle."""

    def __init__(self, find: Find | None) -> None:
        self.find = find
        #: The files being read, each named by the one before it, by their real paths.
        self.open: dict[str, str] = {}
        self.files = 0

    def load(self, source: str | Path | Mapping[str, object] | Recipe) -> Node:
        if isinstance(source, Recipe):
            return Node.of(source.resolved()) if source._tree is None else source._tree.copy()
        if isinstance(source, Mapping):
            return self._whole(_from_python(source))
        return self._file(Node(str(source)))

    def nest(self, tree: Node) -> None:
        """Put the recipes that `teacher` and `student` name in the place of their names."""
        for role in ROLES:
            table = tree.child(role)
            named = table.child("recipe") if table is not None else None
            if table is None or named is None:
                continue
            if isinstance(named.value, str):
                table.value["recipe"] = self._file(named)
            elif isinstance(named.value, dict):
                table.value["recipe"] = self._whole(named)

    def _file(self, named: Node) -> Node:
        path = self._path(named)
        with self._entered(path, named):
            tree = self._whole(self._read(path, named))
        tree.value.setdefault("name", Node(path.stem))
        return tree

    def _whole(self, tree: Node) -> Node:
        """A tree with what it extends, ids and nested recipes."""
        whole = Node({})
        for layer in self._layers(tree, set()):
            whole = merge(whole, layer)
            give_ids(whole)
        self.nest(whole)
        return whole

    def _layers(self, tree: Node, seen: set[str]) -> Iterator[Node]:
        """What the tree extends, the furthest first, each file once, and itself."""
        for named in _targets(tree):
            path = self._path(named)
            with self._entered(path, named):
                if (real := _real(path)) not in seen:
                    seen.add(real)
                    yield from self._layers(self._read(path, named), seen)
        yield tree

    def _read(self, path: Path, named: Node) -> Node:
        self.files += 1
        if self.files > MAX_FILES:
            raise RecipeError(f"the recipe leads to more than {MAX_FILES} files", place=named.place())
        return read_recipe(path, named.place())

    def _path(self, named: Node) -> Path:
        """The file that a node names: shipped, or from the folder of the file that it stands in."""
        name = str(named.value)
        if not name.startswith(SHIPPED):
            return (Path(named.text.file).parent if named.text is not None else Path()) / name
        if self.find is None:
            raise RecipeError(f"{name} cannot be looked up here", place=named.place(), hint="give a path")
        try:
            return self.find(name.removeprefix(SHIPPED))
        except DemiglaceError as error:
            raise RecipeError(faults=[fault.at(named.place()) for fault in error.faults]) from None

    @contextmanager
    def _entered(self, path: Path, named: Node) -> Iterator[None]:
        real = _real(path)
        if real in self.open:
            names = list(self.open.values())[list(self.open).index(real) :]
            circle = " -> ".join([*names, str(path)])
            raise RecipeError(
                f"the recipe leads back to itself: {circle}",
                place=named.place(),
                hint="take one of the steps out",
            )
        self.open[real] = str(path)
        try:
            yield
        finally:
            del self.open[real]


def _real(path: Path) -> str:
    """The file's one name among all paths that lead to it."""
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have such a path; reading it says so
        return str(path)


def _targets(tree: Node) -> list[Node]:
    """The nodes that name what a tree extends."""
    named = tree.child(EXTENDS)
    if named is None:
        return []
    targets = named.value if isinstance(named.value, list) else [named]
    wrong = [target for target in targets if not isinstance(target.value, str) or not target.value]
    if wrong:
        message = "extends must be a path or a list of paths"
        faults = [Fault(message, target.place(), 'extends = "base.toml"') for target in wrong]
        raise RecipeError(faults=faults)
    return targets


def _from_python(data: Mapping[str, object]) -> Node:
    tree = Node.of(data)
    if not tree.value:
        raise RecipeError("the recipe is empty", hint="it needs at least one pass")
    return tree
