"""`quantize.static`: linear layers and convolutions on 8-bit integers with calibrated input ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem
from demiglace_quantizers._control import Controlled, within
from demiglace_quantizers._layers import chosen, problems, report_weights

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class StaticConfig(Controlled):
    """Compute linear layers and convolutions on integers, with input ranges taken from calibration data.

    Batch norms that directly follow a layer are folded into it first. Other layers with weights store
    integers and compute in floating point.
    """

    bits: Literal[8, 6, 4] = 8
    """Bits of a weight; inputs have 8."""
    observer: Literal["minmax", "percentile", "mse"] = "mse"
    """How an input's range is chosen: all of it, all but one value in 100,000 at each end, or the one with
    the least squared error."""
    bias_correction: bool = True
    """Let each layer's bias take up what rounding its weight changes of its mean output."""
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration examples."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples in a calibration batch."""

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float", "data.calibration", *self.data_needs()),
            gives=("weights.quantized", f"weights.int{self.bits}", "activations.int8", "products.int8"),
            # Integer arithmetic lets no gradient through, in however few layers.
            destroys=("model.trainable", *(("weights.float", "weights.masked") if whole else ())),
        )

    def words(self) -> str:
        return f"compute on {self.bits}-bit weights and 8-bit inputs, ranges from {self.samples} examples"


class Static(Editor[StaticConfig]):
    """Folds, calibrates, rounds, and swaps layers for ones that compute on integers."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        return problems(model, self.config)

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        from demiglace_quantizers._static import StaticQuantizer

        model = model.with_layers()
        layers = chosen(model, self.config, context)
        quantizer = StaticQuantizer(model, layers, self.config, context)
        folded = {name: one.weight for name, one in quantizer.folded.items()}
        report_weights(context, layers, quantizer.weights, folded)
        context.figures["integer_layers"] = quantizer.integer
        context.figures["folded"] = list(quantizer.folded)
        return within(model, quantizer.groups(), self.config.max_drop, context)


SPEC = PassSpec(
    "quantize.static",
    Kind.EDITOR,
    StaticConfig,
    "demiglace_quantizers.static:Static",
    '[[pass]]\nuse = "quantize.static"\nsamples = 128\n',
)
