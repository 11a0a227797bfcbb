"""Containers of inputs and outputs as plain data: tuples, lists, dicts and named tuples in each other."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from demiglace.errors import ArtifactError, GraphError, UsageError

if TYPE_CHECKING:
    from torch.utils._pytree import TreeSpec


class Kind(StrEnum):
    """What a container is."""

    LEAF = "leaf"
    TUPLE = "tuple"
    LIST = "list"
    DICT = "dict"
    ORDERED = "ordered_dict"
    NAMED = "named_tuple"


@dataclass(frozen=True)
class Tree:
    """A container, or the place of one leaf."""

    kind: Kind = Kind.LEAF
    children: tuple[Tree, ...] = ()
    #: Keys of a dict, fields of a named tuple.
    keys: tuple[str | int, ...] = ()
    #: A named tuple's name.
    name: str = ""

    def flatten(self, value: Any, where: str = "the inputs") -> Iterator[Any]:
        """The leaves of a value of this form.

        Raises:
            UsageError: when the value has another form.
        """
        if self.kind is Kind.LEAF:
            yield value
            return
        for key, child, inner in zip(self._labels(), self.children, self._parts(value, where), strict=True):
            yield from child.flatten(inner, f"{where}[{key!r}]")

    def _labels(self) -> tuple[str | int, ...]:
        return self.keys or tuple(range(len(self.children)))

    def _parts(self, value: Any, where: str) -> list[Any]:
        if self.kind in {Kind.DICT, Kind.ORDERED}:
            fits = isinstance(value, Mapping) and set(value) == set(self.keys)
            parts = [value[key] for key in self.keys] if fits else []
        else:
            fits = isinstance(value, tuple | list) and len(value) == len(self.children)
            parts = list(value) if fits else []
        if not fits:
            raise UsageError(
                f"{where}: the graph takes {self.described()}, not {_described(value)}",
                hint="call it with inputs of the form that it was traced with",
            )
        return parts

    def described(self) -> str:
        """The form in words."""
        if self.keys:
            return f"a {self.kind} with {', '.join(map(str, self.keys))}"
        return f"a {self.kind} of {len(self.children)}"

    def build(self, leaves: Iterator[Any]) -> Any:
        """The value of this form with these leaves."""
        if self.kind is Kind.LEAF:
            return next(leaves)
        parts = [child.build(leaves) for child in self.children]
        match self.kind:
            case Kind.DICT:
                return dict(zip(self.keys, parts, strict=True))
            case Kind.ORDERED:
                return OrderedDict(zip(self.keys, parts, strict=True))
            case Kind.NAMED:
                return namedtuple(self.name, [str(key) for key in self.keys])(*parts)
            case Kind.LIST:
                return parts
        return tuple(parts)

    def count(self) -> int:
        """The number of leaves."""
        return 1 if self.kind is Kind.LEAF else sum(child.count() for child in self.children)

    def to_json(self) -> Any:
        """As in the graph's file; a leaf is `null`."""
        if self.kind is Kind.LEAF:
            return None
        children = [child.to_json() for child in self.children]
        return {"kind": str(self.kind), "keys": list(self.keys), "name": self.name, "children": children}

    @classmethod
    def from_json(cls, value: Any) -> Tree:
        """What `to_json` gave.

        Raises:
            ArtifactError: when it is nothing of the kind.
        """
        match value:
            case None:
                return cls()
            case {"kind": str(kind), "keys": [*keys], "name": str(name), "children": [*children]}:
                tree = cls(Kind(kind), tuple(cls.from_json(child) for child in children), tuple(keys), name)
                if tree._is_valid():
                    return tree
        raise ArtifactError(f"the graph's file holds something that is not a container: {str(value)[:100]}")

    def _is_valid(self) -> bool:
        if self.kind in {Kind.TUPLE, Kind.LIST}:
            return not self.keys
        right = all(isinstance(key, str | int) for key in self.keys) and len(self.keys) == len(self.children)
        if self.kind is not Kind.NAMED:
            return right
        return right and self.name.isidentifier() and all(str(key).isidentifier() for key in self.keys)


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def tree_of(spec: TreeSpec) -> Tree:
    """The tree of a torch pytree.

    Raises:
        GraphError: for a container that is none of the kinds here.
    """
    children = tuple(tree_of(child) for child in spec.children())
    kind = spec.type
    if kind is None:
        return Tree()
    if kind in {tuple, list}:
        return Tree(Kind(kind.__name__), children)
    if kind in {dict, OrderedDict}:
        return Tree(Kind.DICT if kind is dict else Kind.ORDERED, children, tuple(spec.context))
    if kind is namedtuple:
        return Tree(Kind.NAMED, children, tuple(spec.context._fields), spec.context.__name__)
    raise GraphError(
        f"the model takes or returns a {kind.__name__}, which a plain-data graph cannot hold",
        hint="tuples, lists, dicts and named tuples of tensors can be held",
    )
