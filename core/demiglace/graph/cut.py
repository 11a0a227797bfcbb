"""From units to remove to edits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from demiglace.errors import GraphError
from demiglace.graph.attributes import attributes
from demiglace.graph.edits import Cut, SetAttr
from demiglace.graph.literals import Removal

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph.groups import Group
    from demiglace.graph.model_graph import ModelGraph


def removal_edits(model: ModelGraph, removed: Iterable[tuple[Group, Tensor]]) -> list[Cut | SetAttr]:
    """The edits that remove units of groups: cuts of every tensor involved, and attributes put right.

    Args:
        model: the model that the groups were found in, not edited since.
        removed: groups with the units that go, as indices `[count]`; not all units of a group.

    Raises:
        GraphError: when nothing of a group would be left.
    """
    gone: dict[tuple[str, int], set[int]] = {}
    for group, units in removed:
        if len(units) >= group.units:
            raise GraphError(f"removing all {group.units} units of {group.name!r} would leave nothing of it")
        if len(units) == 0:
            continue
        for one in group.slices:
            gone.setdefault((one.tensor, one.dim), set()).update(one.index[units].reshape(-1).tolist())
    tensors = dict([*model.module.named_parameters(), *model.module.named_buffers()])
    cuts = {
        (tensor, dim): Cut(
            tensor, dim, tuple(place for place in range(tensors[tensor].shape[dim]) if place not in indices)
        )
        for (tensor, dim), indices in gone.items()
    }
    removal = Removal.of(model.traced.tracer, cuts)
    shapes = {name: _shape(name, tuple(tensor.shape), cuts) for name, tensor in tensors.items()}
    return [*cuts.values(), *attributes(model.module, removal, shapes)]


def _shape(name: str, shape: tuple[int, ...], cuts: dict[tuple[str, int], Cut]) -> tuple[int, ...]:
    return tuple(len(cuts[name, dim].kept) if (name, dim) in cuts else size for dim, size in enumerate(shape))
