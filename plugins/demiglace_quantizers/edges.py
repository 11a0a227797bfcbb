"""`quantize.edges`: what flows between integer layers becomes 8-bit integers too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.passes import Config, Context, Contract, Editor, Kind, PassSpec

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class EdgesConfig(Config):
    """Compute sums, products, pooling and concatenation between integer layers on integers as well.

    The model becomes its plain-data graph. Outputs of integer layers are rounded to 8 bits, after an
    activation that nothing else separates from them, and so are the results of what reads only such values.
    So a runtime needs no floating point between two layers, where `quantize.static` and `quantize.qat`
    alone leave it between all of them.
    """

    observer: Literal["minmax", "percentile", "mse"] = "mse"
    """How a value's range is chosen: all of it, all but one value in 100,000 at each end, or the one with
    the least squared error."""
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration examples."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples in a calibration batch."""

    def contract(self) -> Contract:
        return Contract.of(
            needs=("activations.int8", "data.calibration"),
            gives=("edges.int8",),
            # Values that are rounded once have their ranges for good.
            destroys=("model.trainable", "activations.int8"),
        )

    def words(self) -> str:
        return f"round what flows between integer layers to 8 bits, ranges from {self.samples} examples"


class Edges(Editor[EdgesConfig]):
    """Lowers the model, calibrates the values between its layers, and rounds them."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> list[Edit]:
        from demiglace_quantizers._edges import edge_edits

        return edge_edits(model, self.config, context)


SPEC = PassSpec(
    "quantize.edges",
    Kind.EDITOR,
    EdgesConfig,
    "demiglace_quantizers.edges:Edges",
    '[[pass]]\nuse = "quantize.static"\n\n[[pass]]\nuse = "quantize.edges"\n',
)
