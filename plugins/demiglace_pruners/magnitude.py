"""`prune.magnitude`: hold the weights of the smallest magnitude at zero.

Global and layer-wise magnitude pruning as in Han et al. 2015 ("Learning both Weights and Connections")
and Zhu and Gupta 2017 ("To prune, or not to prune"), with an exact count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from demiglace.graph import count_zeros, keep_at_least, mask_smallest
from demiglace.passes import Context, Contract, Kind, PassSpec, Share
from demiglace_pruners._amounts import Scoped, amount_words, removals
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros, zeros_after

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Mask, ModelGraph, Weight


class MagnitudeConfig(Scoped):
    """Hold the weights of the smallest magnitude at zero.

    Zeros count as removed already, whether a mask holds them or not. Of equal magnitudes the first in
    the model's order go first. Frozen weights are pruned like others and stay frozen.
    """

    amount: Share | None = None
    """Share of the selected weights that are zero in the end, 0 to 1; or give `threshold`."""
    threshold: Annotated[float, Field(gt=0)] | None = None
    """Remove what is smaller than this, instead of an amount."""
    norm: Literal["l1", "l2"] = "l1"
    """The norm that ranks blocks; single weights rank the same under both."""
    block: Annotated[int, Field(ge=1, le=4096)] = 1
    """Weights that go or stay together: consecutive ones of a row (inputs, then kernel
    positions). 1 is unstructured; 9 takes whole 3x3 kernels. A layer whose rows it does not divide is left
    alone."""

    @model_validator(mode="after")
    def _one_measure(self) -> MagnitudeConfig:
        if (self.amount is None) == (self.threshold is None):
            raise ValueError("give either `amount` (a share, 0 to 1) or `threshold` (a magnitude), not both")
        return self

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.masked",))

    def words(self) -> str:
        what = "weights" if self.block == 1 else f"blocks of {self.block} weights"
        norm = "magnitude" if self.block == 1 else f"{self.norm.upper()} norm"
        if self.amount is None:
            return f"zero the {what} whose {norm} is below {self.threshold:g}"
        share = amount_words(self.amount, self.of, what)
        return f"zero {share}: those of the smallest {norm}, ranked {self.scope_words()}"


class Magnitude(MaskEditor[MagnitudeConfig]):
    """Ranks weights, or blocks of them, by norm and masks the smallest."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Mask]:
        weights = [one for one in chosen(model, self.config, context) if self._fits(one, context)]
        together = self.config.scope == "global"
        groups = [weights] if together and weights else [[weight] for weight in weights]
        zeros = 0
        for group in groups:
            keeps, zeros_of_group = self._rank(group, amount)
            zeros += zeros_of_group
            yield from mask_edits(group, keeps)
        promise_zeros(context, weights, zeros)

    def _fits(self, weight: Weight, context: Context) -> bool:
        row = weight.tensor[0].numel()
        if row % self.config.block == 0:
            return True
        context.leave_alone(weight.name, f"blocks of {self.config.block} do not divide its rows of {row}")
        return False

    def _rank(self, weights: Sequence[Weight], amount: float | None) -> tuple[list[Tensor], int]:
        """Masks for weights that are ranked together, and how many zeros they will have."""
        if self.config.block > 1:
            return self._rank_blocks(weights, amount)
        tensors, masks = [one.tensor for one in weights], [one.keep for one in weights]
        return self._keep(tensors, masks, amount)

    def _rank_blocks(self, weights: Sequence[Weight], amount: float | None) -> tuple[list[Tensor], int]:
        blocks, _ = self._keep([self._norms(one) for one in weights], None, amount)
        keeps = [
            block.repeat_interleave(self.config.block, dim=1).view(weight.tensor.shape)
            for weight, block in zip(weights, blocks, strict=True)
        ]
        return keeps, sum(map(zeros_after, weights, keeps))

    def _keep(
        self, scores: list[Tensor], masks: list[Tensor | None] | None, amount: float | None
    ) -> tuple[list[Tensor], int]:
        """What to keep by score, and how many scores are zero in the end."""
        share = self.config.amount if amount is None else amount
        if share is None:
            keeps = keep_at_least(scores, self.config.threshold or 0.0, masks)
            return keeps, sum(int((~keep).sum()) for keep in keeps)
        zeros = 0
        # A schedule's amounts are of all weights.
        of = self.config.of if amount is None else "total"
        if of == "remaining":
            zeros = sum(map(count_zeros, scores, masks or [None] * len(scores)))
        remove = removals(share, of, sum(score.numel() for score in scores), zeros)
        return mask_smallest(scores, remove, masks)

    def _norms(self, weight: Weight) -> Tensor:
        """The norm of each block, shape `[rows, blocks of a row]`."""
        import torch

        kept = weight.tensor if weight.keep is None else weight.tensor.where(weight.keep, 0)
        blocks = kept.flatten(1).unflatten(1, (-1, self.config.block))
        wide = torch.promote_types(blocks.dtype, torch.float32)
        return torch.linalg.vector_norm(blocks, ord=int(self.config.norm[1]), dim=-1, dtype=wide)


SPEC = PassSpec(
    "prune.magnitude",
    Kind.EDITOR,
    MagnitudeConfig,
    "demiglace_pruners.magnitude:Magnitude",
    '[[pass]]\nuse = "prune.magnitude"\namount = 0.3\nscope = "global"\n',
)
