"""From scores of units to which of them go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """What must be left of a group."""

    #: Units that stay, at least 1.
    min_kept: int = 1
    #: The number that stays is a multiple of this where the group is large enough.
    round_to: int = 1

    def kept(self, units: int, wanted: int) -> int:
        """How many of `units` stay when `wanted` should, from 1 to `units`."""
        least = max(wanted, self.min_kept, 1)
        return min(units, -(-least // self.round_to) * self.round_to)


def by_group(scores: Sequence[Tensor], share: float, limits: Limits) -> list[Tensor]:
    """For each group the units that go: the given share of each, those of the lowest scores.

    Args:
        scores: for each group one score per unit.
        share: of the units, 0 to 1.
        limits: what stays in any case.
    """
    return [
        _lowest(one, len(one) - limits.kept(len(one), len(one) - round(share * len(one)))) for one in scores
    ]


def together(scores: Sequence[Tensor], share: float, limits: Limits) -> list[Tensor]:
    """For each group the units that go, ranked over all groups by score relative to the group's mean.

    Args: as `by_group`; the share is of all units together.
    """
    relative = [one / _mean(one) for one in scores]
    owner = torch.cat([torch.full((len(one),), number) for number, one in enumerate(scores)])
    room = torch.tensor([len(one) - limits.kept(len(one), 1) for one in scores])
    # Of equal scores those go first that are low in their own group: fresh norms all have one scale.
    ranks = torch.cat([torch.argsort(torch.argsort(one, stable=True)) / len(one) for one in scores])
    by_rank = torch.argsort(ranks, stable=True)
    order = by_rank[torch.argsort(torch.cat(relative)[by_rank], stable=True)]
    left = round(share * len(order))
    counts = [0] * len(scores)
    for number in owner[order].tolist():
        if left == 0:
            break
        if counts[number] < room[number]:
            counts[number] += 1
            left -= 1
    # Rounding keeps more of a group, never less.
    removed = (
        len(one) - limits.kept(len(one), len(one) - count) for one, count in zip(scores, counts, strict=True)
    )
    return [_lowest(one, count) for one, count in zip(scores, removed, strict=True)]


def _mean(scores: Tensor) -> Tensor:
    """The mean of what has a score: units that must go or stay have infinite ones."""
    finite = scores[scores.isfinite()]
    return (finite if len(finite) else scores.new_ones(1)).mean().clamp_min(torch.finfo(scores.dtype).tiny)


def _lowest(scores: Tensor, count: int) -> Tensor:
    return torch.argsort(scores, stable=True)[:count].sort().values
