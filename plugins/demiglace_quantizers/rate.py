"""`quantize.rate`: weights as integers whose steps are chosen for the bytes of the packed file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem, Targeted
from demiglace_quantizers._layers import chosen, problems, report_weights
from demiglace_quantizers._telling import tell

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph
    from demiglace.quantization import Layer

_BITS = 4.0  # a weight, where a recipe says nothing
_FEWEST = 0.1  # bits a weight that may be asked for


class RateConfig(Targeted):
    """Store weights as integers that take a given number of bytes once `export.packed` has coded them.

    Each row gets a step of its own and each weight an integer of -127 to 127, chosen for what its error
    costs and what its bits cost: rows that matter little, and weights near zero, take little. Without
    `export.packed` a weight takes a byte.
    """

    bits_per_weight: Annotated[float, Field(ge=_FEWEST, le=8)] | None = None
    """Bits a weight, on average over all that are chosen, coded and with its share of the scales; 4
    where neither this nor `bytes` is given."""
    bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes that all chosen weights take together, in place of `bits_per_weight`. What is not quantized comes
    on top."""
    method: Literal["rtn", "gptq"] = "gptq"
    """`gptq` runs calibration data: it gives bits to the rows that the outputs depend on, words of an
    embedding by how often they come, and makes later weights of a row make up for the error of earlier
    ones. `rtn` needs no data, and costs every row's errors by their relative size."""
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration examples that `gptq` looks at; they should be like those that the model is for."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples in a calibration batch."""
    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """What `gptq` adds to the diagonal of the inputs' second moments, as a share of its mean."""

    @model_validator(mode="after")
    def _one_size(self) -> RateConfig:
        if self.bits_per_weight is not None and self.bytes is not None:
            raise ValueError("give bits_per_weight or bytes, not both")
        return self

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float", *(("data.calibration",) if self.method == "gptq" else ())),
            gives=("weights.quantized", "weights.int8"),
            destroys=("weights.float", "weights.masked", "model.trainable") if whole else (),
        )

    def words(self) -> str:
        bits = f"{self.bits_per_weight or _BITS:g} bits a weight"
        size = bits if self.bytes is None else f"{self.bytes:,} bytes"
        how = "without data" if self.method == "rtn" else "by gptq and what the outputs depend on"
        return f"store weights as integers that take {size} once they are packed, {how}"


class Rate(Editor[RateConfig]):
    """Plans the steps of all rows under one budget, rounds, and swaps layers for ones that hold integers."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        yield from problems(model, self.config)
        if self.config.bytes is not None:
            yield from self._too_few_bytes(model, self.config.bytes)

    def _too_few_bytes(self, model: ModelGraph, given: int) -> Iterator[Problem]:
        from demiglace.quantization import select_layers

        layers = select_layers(model.with_layers(), self.config.targets, self.config.ignore).layers
        count = _count(layers)
        least = math.ceil(_FEWEST * count / 8)
        if given < least:
            message = f"{given:,} bytes for {count:,} weights are fewer than {_FEWEST} bits a weight"
            yield Problem(message, ("bytes",), f"give at least {least:,}")

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        from demiglace_quantizers._rate import rounded_within

        model = model.with_layers()
        layers = chosen(model, self.config, context)
        bits = (self.config.bits_per_weight or _BITS) * _count(layers)
        if self.config.bytes is not None:
            bits = 8 * self.config.bytes
        rounded = rounded_within(model, layers, bits, self.config, context)
        report_weights(context, layers, rounded.weights)
        tell(context)
        return map(rounded.swap, layers)


def _count(layers: Iterable[Layer]) -> int:
    """How many weights the layers have together."""
    weights = {id(weight): weight for layer in layers for weight in layer.weights.values()}
    return sum(weight.numel() for weight in weights.values())


SPEC = PassSpec(
    "quantize.rate",
    Kind.EDITOR,
    RateConfig,
    "demiglace_quantizers.rate:Rate",
    '[[pass]]\nuse = "quantize.rate"\nbits_per_weight = 3.5\n',
)
