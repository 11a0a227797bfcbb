"""Structural pruning in several steps: after each, what is left is ranked anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demiglace.graph import Group, ModelGraph, apply_verified, removal_edits, removal_of

if TYPE_CHECKING:
    from demiglace.graph import Slice


class Survivors:
    """A copy of a model without some units, whose groups are told in the units of the model.

    Args:
        model: the model, which stays as it is.
        groups: of the model.
        removed: for each group, the units that are gone.

    Raises:
        GraphError: when the copy cannot be cut.
    """

    def __init__(self, model: ModelGraph, groups: Sequence[Group], removed: Sequence[Tensor]) -> None:
        chosen = list(zip(groups, removed, strict=True))
        self._groups, self._removed = groups, removed
        self._cuts = removal_of(model, chosen)[1]
        self.model = model.copy()
        apply_verified(self.model, removal_edits(model, chosen))[0].commit()
        #: By tensor, dimension and index, the group and unit of the model.
        self._units = {
            (one.tensor, one.dim, index): (number, unit)
            for number, group in enumerate(groups)
            for one in group.slices
            for unit, indices in enumerate(one.index.tolist())
            for index in indices
        }

    @property
    def groups(self) -> list[Group]:
        """The groups of the copy that hold units of the model's groups."""
        return [group for group in self.model.groups if self._homes(group)]

    def scores(self, scored: Iterable[tuple[Group, Tensor]]) -> list[Tensor]:
        """The scores of the copy's groups, one for each unit of the model's.

        What is gone has the lowest score there is, what was given none, the highest.
        """
        found = [torch.full((group.units,), torch.inf, dtype=torch.float64) for group in self._groups]
        for scores, gone in zip(found, self._removed, strict=True):
            scores[gone] = -torch.inf
        for group, scores in scored:
            for (number, unit), score in zip(self._homes(group), scores.tolist(), strict=True):
                found[number][unit] = score
        return found

    def _homes(self, group: Group) -> list[tuple[int, int]]:
        """The model's group and unit for each unit of a group of the copy; empty for another group."""
        for one in group.slices:
            places = [(one.tensor, one.dim, index) for index in self._before(one)]
            if all(place in self._units for place in places):
                return [self._units[place] for place in places]
        return []

    def _before(self, one: Slice) -> list[int]:
        """The index that a slice of the copy has in the model, for each unit."""
        first = one.index[:, 0].tolist()
        cut = self._cuts.get((one.tensor, one.dim))
        return first if cut is None else [cut.kept[index] for index in first]
