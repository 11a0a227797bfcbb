"""Groups: the structures of a model that can be removed, and everything that goes with each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demiglace.graph.search import Search
from demiglace.graph.trace import Slot, Tracer
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace.graph.model_graph import ModelGraph

PRODUCED, CONSUMED, TIED = "produced", "consumed", "tied"
"""Rows of a weight that make a channel; columns that read it; vectors that follow it."""


@dataclass(frozen=True)
class Slice:
    """The indices of one dimension of a parameter or buffer that go with each unit of a group."""

    tensor: str
    dim: int
    #: `PRODUCED`, `CONSUMED` or `TIED`.
    role: str
    #: Shape `[units, k]`: unit `u` takes the indices `index[u]`.
    index: Tensor


@dataclass(frozen=True)
class Group:
    """Units of one kind, each of which can be removed with all its slices."""

    #: The layer that produces the units, or that holds the first tensor.
    name: str
    slices: tuple[Slice, ...]
    #: Whether a unit is a head of attention.
    heads: bool
    #: Whether a norm takes its mean and variance over the units.
    normalized: bool

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.slices[0].index.shape[0]

    def layers(self, role: str = PRODUCED) -> list[str]:
        """The layers with a slice of that role, in the model's order."""
        return list(dict.fromkeys(holder(one.tensor) for one in self.slices if one.role == role))

    @property
    def shape(self) -> tuple[tuple[str, int, int], ...]:
        """What groups that may be compared with each other have in common: roles, dimensions, widths."""
        return tuple(sorted((one.role, one.dim, one.index.shape[1]) for one in self.slices))


@dataclass(frozen=True)
class Traced:
    """A model's groups, and the labelled graphs that they come from."""

    groups: tuple[Group, ...]
    #: Why an axis (tensor, dimension) that makes channels is left alone, wholly or in part.
    frozen: Mapping[tuple[str, int], str]
    tracer: Tracer
    program: ExportedProgram
    #: Whether inference leaves parameters unread, which training may read.
    unread: bool


def holder(tensor: str) -> str:
    """The module that holds a parameter or buffer; `.` for the root."""
    return tensor.rpartition(".")[0] or ROOT


def trace(model: ModelGraph, program: ExportedProgram) -> Traced:
    """Label a model by its exported graph, and find its groups."""
    search = Search.of(model, program)
    return _traced(search.best(), search.programs["eval"], search.unread)


def _traced(tracer: Tracer, program: ExportedProgram, unread: bool) -> Traced:
    slots = tracer.cuttable()
    roots = [tracer.labels.find(slot.labels) for slot in slots]
    roles = _roles(tracer, slots)
    reasons = tracer.labels.reasons()
    members = _members(tracer, [*roots, *map(tracer.labels.find, tracer.pieces)])
    heads = _roots_of(tracer, tracer.heads)
    normalized = _roots_of(tracer, tracer.normalized)
    slices: dict[int, list[Slice]] = {}
    first: dict[int, Tensor] = {}
    # What follows a channel has its labels: of a batch norm, four tensors do.
    known: dict[bytes, list[tuple[int, Tensor, Tensor]]] = {}
    for slot, root, role in zip(slots, roots, roles, strict=True):
        key = root.numpy().tobytes()
        if key not in known:
            known[key] = list(_units(root, members))
        for number, units, index in known[key]:
            first.setdefault(number, units)
            slices.setdefault(number, []).append(Slice(slot.tensor, slot.dim, role, index))
    groups = tuple(
        Group(
            _name(found),
            tuple(found),
            bool(torch.isin(first[number], heads).any()),
            bool(torch.isin(first[number], normalized).any()),
        )
        for number, found in slices.items()
        if len(first[number]) > 1
    )
    frozen = _reasons(slots, roots, _reported(slots, roles, program), reasons, members)
    return Traced(groups, frozen, tracer, program, unread)


def _units(root: Tensor, members: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each group that an axis holds units of: its number, the roots of the units, and their indices."""
    order = torch.argsort(root, stable=True)
    order = order[torch.argsort(members[root[order]], stable=True)]
    numbers, sizes = members[root[order]].unique_consecutive(return_counts=True)
    for number, places in zip(numbers.tolist(), order.split(sizes.tolist()), strict=True):
        if number >= 0:
            units = root[places].unique_consecutive()
            yield number, units, places.view(len(units), -1)


def _roots_of(tracer: Tracer, axes: Sequence[Tensor]) -> Tensor:
    return tracer.labels.find(torch.cat(list(axes))).unique() if axes else torch.zeros(0, dtype=torch.long)


def _members(tracer: Tracer, roots: Sequence[Tensor]) -> Tensor:
    """For each root, the number of its group, or -1: units that touch the same axes alike are a group.

    Pieces of an axis count as axes, so that no piece is removed wholly.
    """
    generator = torch.Generator().manual_seed(0)
    signature = torch.zeros(len(tracer.labels), dtype=torch.long)
    for root in roots:
        # The sum of one random number per index is a fingerprint of which axes, and how often.
        mark = torch.randint(1, 2**62, (1,), generator=generator)
        signature.scatter_add_(0, root, mark.expand(len(root)))
    frozen = tracer.labels.frozen()
    number = signature.unique(return_inverse=True)[1]
    number[frozen | (signature == 0)] = -1
    return number


def _roles(tracer: Tracer, slots: Sequence[Slot]) -> list[str]:
    names = (TIED, CONSUMED, PRODUCED)
    role = torch.zeros(len(tracer.labels), dtype=torch.long)
    for axis, name in tracer.roles:
        role[axis] = torch.maximum(role[axis], torch.tensor(names.index(name)))
    return [names[int(role[slot.labels].max())] for slot in slots]


def _reported(slots: Sequence[Slot], roles: Sequence[str], program: ExportedProgram) -> list[bool]:
    """Which axes are told of when left alone: what makes channels, or the first of an unknown weight."""
    known = {slot.tensor for slot, role in zip(slots, roles, strict=True) if role != TIED}
    weights = {slot.tensor for slot in slots if slot.dim > 0} - known
    weights &= set(program.graph_signature.inputs_to_parameters.values())
    return [
        role == PRODUCED or (slot.tensor in weights and slot.dim == 0)
        for slot, role in zip(slots, roles, strict=True)
    ]


def _name(slices: Sequence[Slice]) -> str:
    produced = [one for one in slices if one.role == PRODUCED]
    return holder((produced or slices)[0].tensor)


def _reasons(
    slots: Sequence[Slot],
    roots: Sequence[Tensor],
    reported: Sequence[bool],
    reasons: Mapping[int, str],
    members: Tensor,
) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    for slot, root, told in zip(slots, roots, reported, strict=True):
        if not told:
            continue
        stuck = root[members[root] < 0]
        if len(stuck):
            part = "" if len(stuck) == len(root) else f"{len(stuck)} of {len(root)}: "
            found[slot.tensor, slot.dim] = part + reasons.get(int(stuck[0]), "nothing reads it")
        elif len(root.unique()) == 1:
            found[slot.tensor, slot.dim] = "all its indices are tied to each other"
    return found
