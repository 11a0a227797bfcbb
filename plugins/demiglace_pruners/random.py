"""`prune.random`: hold weights drawn at random at zero, the baseline of every pruning method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.graph import count_zeros, keep_largest
from demiglace.passes import Context, Contract, Kind, PassSpec, Share
from demiglace_pruners._amounts import Scoped, amount_words, removals
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from demiglace.graph import Mask, ModelGraph, Weight


class RandomConfig(Scoped):
    """Hold weights drawn at random at zero: the baseline of every pruning method.

    The draw follows the recipe's seed and the step's id. Zeros count as removed already.
    """

    amount: Share
    """Share of the selected weights that are zero in the end, 0 to 1."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.masked",))

    def words(self) -> str:
        share = amount_words(self.amount, self.of)
        return f"zero {share}, at random {self.scope_words()}"


class Random(MaskEditor[RandomConfig]):
    """Gives every weight a random rank and masks the lowest; a larger amount masks a superset."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Mask]:
        share = self.config.amount if amount is None else amount
        of = self.config.of if amount is None else "total"
        weights, draw, zeros = chosen(model, self.config, context), context.rng(), 0
        for group in [weights] if self.config.scope == "global" else [[one] for one in weights]:
            scores = [_scores(weight, draw) for weight in group]
            zeros_now = sum(map(count_zeros, scores))
            remove = removals(share, of, sum(score.numel() for score in scores), zeros_now)
            zeros += max(remove, zeros_now)
            yield from mask_edits(group, keep_largest(scores, remove))
        promise_zeros(context, weights, zeros)


def _scores(weight: Weight, draw: torch.Generator) -> Tensor:
    """A random number in (0, 1] for each element, 0 where it is zero already; drawn on the CPU."""
    import torch

    scores = 1 - torch.rand(weight.tensor.shape, generator=draw)
    alive = weight.tensor != 0 if weight.keep is None else (weight.tensor != 0) & weight.keep
    return scores.to(alive.device).mul_(alive)


SPEC = PassSpec(
    "prune.random",
    Kind.EDITOR,
    RandomConfig,
    "demiglace_pruners.random:Random",
    '[[pass]]\nuse = "prune.random"\namount = 0.2\ntargets = ["fc1"]\n',
)
