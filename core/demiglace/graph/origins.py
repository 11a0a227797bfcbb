"""Where a model's structure comes from: what is built again before its edits are replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from demiglace.graph.edits import Json
from demiglace.graph.names import dtype_name, named_tensors, tied_names

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SourceOrigin:
    """A registered source of models builds the structure."""

    name: str
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Structure:
    """What two modules must share to be the same structure: names, dtypes, shapes, and ties."""

    #: dtype name and shape by qualified name of each parameter and buffer, aliases included.
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    #: Groups of names that hold one tensor.
    tied: Sequence[Sequence[str]] = ()

    @classmethod
    def of(cls, module: nn.Module) -> Structure:
        """The structure of a module as it is now."""
        tensors = {name: (dtype_name(each), tuple(each.shape)) for name, each in named_tensors(module)}
        return cls(tensors, tied_names(module))

    def differences(self, other: Structure) -> list[str]:
        """What `other` has otherwise, one line each; empty when nothing."""
        lines = [f"{name!r} is missing" for name in self.tensors if name not in other.tensors]
        lines += [f"{name!r} is not in the saved model" for name in other.tensors if name not in self.tensors]
        for name, (dtype, shape) in self.tensors.items():
            found = other.tensors.get(name, (dtype, shape))
            if found != (dtype, shape):
                lines.append(f"{name!r} is {found[0]} {list(found[1])}, saved {dtype} {list(shape)}")
        if not lines and _sets(self.tied) != _sets(other.tied):
            lines.append("other parameters share one tensor")
        return lines


def _sets(groups: Sequence[Sequence[str]]) -> set[frozenset[str]]:
    return {frozenset(group) for group in groups}


@dataclass(frozen=True)
class CallerOrigin:
    """The caller of `demiglace.run` handed in a module of their own and will hand it in again."""

    #: Qualified name of its class.
    type: str
    #: The structure before the first edit.
    structure: Structure

    @classmethod
    def of(cls, module: nn.Module) -> CallerOrigin:
        """The origin of a caller's module as it is now: take it before the first edit."""
        kind = type(module)
        return cls(f"{kind.__module__}.{kind.__qualname__}", Structure.of(module))


@dataclass(frozen=True)
class GraphOrigin:
    """The plain-data graph beside the tensors is the structure."""


Origin: TypeAlias = SourceOrigin | CallerOrigin | GraphOrigin
