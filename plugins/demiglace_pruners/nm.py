"""`prune.nm`: keep N of every M consecutive weights along the input dimension.

The pattern that sparse tensor cores run at double speed is 2:4 (Mishra et al. 2021, "Accelerating
Sparse Deep Neural Networks"), with groups along the input channels of linear layers and convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from demiglace.errors import GraphError
from demiglace.passes import Context, Contract, Kind, PassSpec, Targeted
from demiglace_pruners._channels import output_dim
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros, zeros_after

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Mask, ModelGraph, Weight

_ROWS = 256  # of a weight that are ranked at a time


class NmConfig(Targeted):
    """Keep the N largest of every M consecutive weights along the input dimension.

    A layer whose input dimension M does not divide is left alone. Of equal magnitudes the first go first.
    """

    pattern: Annotated[str, Field(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$")] = "2:4"
    """`N:M`, how many weights stay of how many, each from 1 to 99: `2:4` keeps 2 of every 4."""

    @field_validator("pattern")
    @classmethod
    def _keeps_fewer(cls, pattern: str) -> str:
        kept, _, of = pattern.partition(":")
        if int(kept) >= int(of):
            raise ValueError(f"{pattern} removes nothing: N:M keeps N of every M, with N below M")
        return pattern

    @property
    def sizes(self) -> tuple[int, int]:
        """How many are kept, of how many."""
        kept, _, of = self.pattern.partition(":")
        return int(kept), int(of)

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.masked",))

    def words(self) -> str:
        kept, of = self.sizes
        return f"keep the {kept} largest of every {of} weights along the input dimension, zero the rest"


class Nm(MaskEditor[NmConfig]):
    """Ranks weights within their group of M and masks all but the N largest."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Mask]:
        kept, of = self.config.sizes
        weights, zeros = [], 0
        for weight in chosen(model, self.config, context):
            dim = 1 - output_dim(model, weight)
            size = weight.tensor.shape[dim]
            if size % of:
                context.leave_alone(weight.name, f"{of} does not divide its input dimension of {size}")
                continue
            weights.append(weight)
            keep = keep_pattern(weight, dim, kept, of)
            zeros += zeros_after(weight, keep)
            yield from mask_edits([weight], [keep])
        if not weights:
            raise GraphError(
                f"no selected weight has an input dimension that {of} divides",
                hint=f"choose another pattern than {self.config.pattern}, or other targets",
            )
        promise_zeros(context, weights, zeros)


def keep_pattern(weight: Weight, dim: int, kept: int, of: int) -> Tensor:
    """A mask that keeps the `kept` largest magnitudes of every `of` along dimension `dim`."""
    import torch

    keep = torch.ones(weight.tensor.shape, dtype=torch.bool, device=weight.tensor.device)
    # Views with the input dimension last, cut into pieces along another so that little is copied.
    tensor, mask = weight.tensor.movedim(dim, -1), keep.movedim(dim, -1)
    held = None if weight.keep is None else weight.keep.movedim(dim, -1)
    for start in range(0, tensor.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        scores = tensor[rows].abs()
        if held is not None:
            scores = scores.masked_fill(~held[rows], 0)
        ranks = scores.unflatten(-1, (-1, of)).argsort(dim=-1, stable=True)
        part = torch.ones(ranks.shape, dtype=torch.bool, device=keep.device)
        part.scatter_(-1, ranks[..., : of - kept], False)
        mask[rows] = part.flatten(-2)
    return keep


SPEC = PassSpec(
    "prune.nm",
    Kind.EDITOR,
    NmConfig,
    "demiglace_pruners.nm:Nm",
    '[[pass]]\nuse = "prune.nm"\npattern = "2:4"\n',
)
