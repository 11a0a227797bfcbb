"""`quantize.smooth`: outlying channels of inputs become part of the weights that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Share, Targeted

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class SmoothConfig(Targeted):
    """Move the range of single channels from inputs into weights, before a quantizer of both.

    What makes a channel (a norm, a linear layer, attention's values) is divided by a factor, and the weights
    of the linear layers that read it are multiplied by it: the model computes the same. Layers whose inputs
    something else reads too are left alone.
    """

    alpha: Share = 0.5
    """How much of the range moves: 0 makes the weights' columns alike, 1 the inputs' channels."""
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration examples."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples in a calibration batch."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float", "data.calibration"))

    def words(self) -> str:
        return (
            f"move channels' ranges from inputs into weights, alpha {self.alpha:g}, {self.samples} examples"
        )


class Smooth(Editor[SmoothConfig]):
    """Writes producers and readers of channels, each scaled against the other."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> list[Edit]:
        from demiglace_quantizers._smooth import smoothed

        return smoothed(model.with_layers(), self.config, context)


SPEC = PassSpec(
    "quantize.smooth",
    Kind.EDITOR,
    SmoothConfig,
    "demiglace_quantizers.smooth:Smooth",
    '[[pass]]\nuse = "quantize.smooth"\n\n[[pass]]\nuse = "quantize.dynamic"\n',
)
