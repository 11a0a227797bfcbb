"""`prune.quantile`: hold the weights below a quantile of their layer's magnitudes at zero.

The threshold of pruning written by hand, `w.abs() < w.abs().quantile(q)`, with linear interpolation
between the two nearest magnitudes as in `torch.quantile`, for layers of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.graph import count_zeros, keep_at_least, kth_smallest
from demiglace.passes import Context, Contract, Kind, PassSpec, Share
from demiglace_pruners._amounts import Of, Ranked, amount_words
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros, zeros_after

if TYPE_CHECKING:
    from demiglace.graph import Mask, ModelGraph, Weight


class QuantileConfig(Ranked):
    """Hold the weights below a quantile of their layer's magnitudes at zero.

    A weight equal to the quantile stays: with many equal weights less goes than `prune.magnitude` takes.
    """

    amount: Share
    """The quantile, 0 to 1: about this share of each layer's weights is zero in the end."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.masked",))

    def words(self) -> str:
        share = amount_words(self.amount, self.of)
        return f"in each layer, zero {share}: those whose magnitude is below that quantile"


class Quantile(MaskEditor[QuantileConfig]):
    """Masks each layer by a threshold of its own."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Mask]:
        share = self.config.amount if amount is None else amount
        of = self.config.of if amount is None else "total"
        weights, zeros = chosen(model, self.config, context), 0
        for weight in weights:
            threshold = quantile(weight, share, of)
            [keep] = keep_at_least([weight.tensor], threshold, [weight.keep]) if threshold > 0 else [None]
            if keep is None:
                context.leave_alone(weight.name, f"its {100 * share:.6g} % quantile is 0")
                zeros += count_zeros(weight.tensor, weight.keep)
                continue
            zeros += zeros_after(weight, keep)
            yield from mask_edits([weight], [keep])
        promise_zeros(context, weights, zeros)


def quantile(weight: Weight, share: float, of: Of = "total") -> float:
    """The magnitude below which a share of a weight's elements lies; masked elements count as 0.

    Args:
        weight: its tensor holds no NaN.
        share: 0 to 1.
        of: `remaining` leaves zeros out.
    """
    import torch

    total = weight.tensor.numel()
    zeros = count_zeros(weight.tensor, weight.keep) if of == "remaining" else 0
    if zeros == total:
        return 0.0
    place = zeros + share * (total - zeros - 1)
    below, above = (
        kth_smallest([weight.tensor], rank, [weight.keep]) for rank in (math.floor(place), math.ceil(place))
    )
    # As in `torch.quantile`, which knows no dtype narrower than this.
    wide = torch.promote_types(below.dtype, torch.float32)
    return float(torch.lerp(below.to(wide), above.to(wide), place - math.floor(place)))


SPEC = PassSpec(
    "prune.quantile",
    Kind.EDITOR,
    QuantileConfig,
    "demiglace_pruners.quantile:Quantile",
    '[[pass]]\nuse = "prune.quantile"\namount = 0.3\n',
)
