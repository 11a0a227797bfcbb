"""From units to remove to edits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from demiglace.errors import GraphError
from demiglace.graph.attributes import attributes
from demiglace.graph.edits import Cut, SetAttr
from demiglace.graph.literals import Removal

if TYPE_CHECKING:
    from demiglace.graph.groups import Group
    from demiglace.graph.model_graph import ModelGraph

Cuts: TypeAlias = Mapping[tuple[str, int], Cut]
"""Cuts by tensor and dimension."""


def removal_edits(model: ModelGraph, removed: Iterable[tuple[Group, Tensor]]) -> list[Cut | SetAttr]:
    """The edits that remove units of groups: cuts of every tensor involved, and attributes put right.

    Args:
        model: the model that the groups were found in, not edited since.
        removed: groups with the units that go, as indices `[count]`; not all units of a group.

    Raises:
        GraphError: when nothing of a group would be left.
    """
    removal, cuts = removal_of(model, removed)
    tensors = _tensors(model)
    shapes = {name: _shape(name, tuple(tensor.shape), cuts) for name, tensor in tensors.items()}
    return [*cuts.values(), *attributes(model.module, removal, shapes)]


def removal_of(model: ModelGraph, removed: Iterable[tuple[Group, Tensor]]) -> tuple[Removal, Cuts]:
    """What removing units of groups means for the graph and for each tensor; as `removal_edits`."""
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for group, units in removed:
        if len(units) >= group.units:
            raise GraphError(f"removing all {group.units} units of {group.name!r} would leave nothing of it")
        for one in group.slices if len(units) else ():
            gone.setdefault((one.tensor, one.dim), []).append(one.index[units].reshape(-1))
    tensors = _tensors(model)
    cuts = {}
    for (name, dim), indices in gone.items():
        kept = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
        kept[torch.cat(indices)] = False
        cuts[name, dim] = Cut(name, dim, tuple(kept.nonzero()[:, 0].tolist()))
    return Removal.of(model.traced.tracer, cuts), cuts


def _tensors(model: ModelGraph) -> dict[str, Tensor]:
    return dict([*model.module.named_parameters(), *model.module.named_buffers()])


def _shape(name: str, shape: tuple[int, ...], cuts: Cuts) -> tuple[int, ...]:
    return tuple(len(cuts[name, dim].kept) if (name, dim) in cuts else size for dim, size in enumerate(shape))
