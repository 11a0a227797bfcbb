"""`prune.structured_norm`: hold whole slices of weights at zero, those of the smallest Ln norm.

The slices of an output dimension are channels: their biases go too, and so do the vectors of the
normalization that follows, so that the channel is zero and not a constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.graph import Mask, count_zeros, keep_largest
from demiglace.passes import Context, Contract, Kind, PassSpec, Share
from demiglace_pruners._amounts import Ranked, amount_words, removals
from demiglace_pruners._channels import Channels, NotFollowed
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros, zeros_after

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph, Weight


class StructuredNormConfig(Ranked):
    """Hold whole slices of each weight at zero, those of the smallest Ln norm.

    Along the output dimension a slice is a channel: its biases and the vectors of the normalization that
    follows are held at zero with it. Where that normalization cannot be told or masked, the layer is left
    alone and the reason reported.
    """

    amount: Share
    """Share of the slices of each selected weight that are zero in the end, 0 to 1."""
    norm: Annotated[float, Field(gt=0, le=1024)] | Literal["inf"] = 2.0
    """The n of the Ln norm: 1, 2, any other number above 0, or `inf` for the largest magnitude."""
    dim: Annotated[int, Field(ge=0, le=4)] = 0
    """The weight's dimension whose slices are ranked: 0 is the output of linear layers and convolutions,
    1 their input; a transposed convolution has them the other way round."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.masked",))

    def words(self) -> str:
        slices = f"slices along dimension {self.dim}"
        norm = "L-infinity" if self.norm == "inf" else f"L{self.norm:g}"
        share = amount_words(self.amount, self.of, slices)
        return f"in each layer, zero {share}: those of the smallest {norm} norm, and their biases"


class StructuredNorm(MaskEditor[StructuredNormConfig]):
    """Masks the weakest slices of each weight and all that would keep a channel alive."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Mask]:
        channels = Channels(model)
        done, zeros = [], 0
        for weight in chosen(model, self.config, context):
            try:
                vectors = channels.vectors(weight, self.config.dim)
            except NotFollowed as unclear:
                context.leave_alone(weight.name, str(unclear))
                continue
            slices = self._slices(weight, amount)
            keep = _spread(slices, self.config.dim, weight.tensor)
            done.append(weight)
            zeros += zeros_after(weight, keep)
            yield from mask_edits([weight], [keep])
            if not slices.all():
                yield from (
                    Mask(name, slices.repeat(size // slices.numel())) for name, size in vectors.items()
                )
        promise_zeros(context, done, zeros)

    def _slices(self, weight: Weight, amount: float | None) -> Tensor:
        """Which slices to keep, shape `[slices]`."""
        import torch

        share = self.config.amount if amount is None else amount
        of = self.config.of if amount is None else "total"
        kept = weight.tensor if weight.keep is None else weight.tensor.where(weight.keep, 0)
        rows = kept.movedim(self.config.dim, 0).flatten(1)
        wide = torch.promote_types(rows.dtype, torch.float32)
        norms = torch.linalg.vector_norm(rows, ord=float(self.config.norm), dim=1, dtype=wide)
        [slices] = keep_largest([norms], removals(share, of, norms.numel(), count_zeros(norms)))
        return slices


def _spread(slices: Tensor, dim: int, tensor: Tensor) -> Tensor:
    """A mask of the tensor's shape from one value for each slice along `dim`."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return slices.view(shape).expand(tensor.shape).contiguous()


SPEC = PassSpec(
    "prune.structured_norm",
    Kind.EDITOR,
    StructuredNormConfig,
    "demiglace_pruners.structured_norm:StructuredNorm",
    '[[pass]]\nuse = "prune.structured_norm"\namount = 0.5\nnorm = 2\ntargets = ["conv2"]\n',
)
