"""`quantize.weight_only`: weights as integers, arithmetic in floating point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem
from demiglace.recipe import did_you_mean
from demiglace_quantizers._control import Controlled, grouped, within
from demiglace_quantizers._layers import chosen, fits, misfits, nothing, problems, report_weights

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph
    from demiglace.quantization import Layer, Scheme
    from demiglace_quantizers._nearest import Rounded

_LOOKING = frozenset({"gptq", "adaround"})
"""Methods that need calibration data; one of a plugin says so when it runs without."""


class WeightOnlyConfig(Controlled):
    """Store weights as integers of 8 to 2 bits; arithmetic stays floating point.

    Buys size, not processor time. Linear layers, convolutions, embeddings and attention are quantized;
    what cannot be is reported and stays as it is.
    """

    bits: Literal[8, 6, 4, 3, 2] = 8
    """Bits of an integer."""
    budget: Annotated[float, Field(gt=2, le=8)] | None = None
    """Mean bits of a weight as stored, scales and zero points included, in place of `bits`: each layer gets
    2 to 8 bits, so that the outputs on calibration data change least."""
    group_size: Annotated[int, Field(ge=2)] | None = None
    """Consecutive weights of an output's row that share a scale; without it the whole row does. A layer
    whose rows it does not divide is left alone."""
    symmetric: bool = False
    """Zero point 0: saves a zero point for each scale, and costs range where weights lean to one side."""
    clip: bool = True
    """Search each group's range for the least squared error instead of taking all of it; `gptq` takes for
    each row what its outputs err less with."""
    method: str = "rtn"
    """How to choose the integers. `rtn` rounds to the nearest. `hqq` fits scales to the bulk of the weights
    and lets a few be far off. `gptq` makes later weights of a row, and later rows, make up for the error of
    earlier ones, and `adaround` learns for each weight whether to round up or down: both look at the layer's
    inputs, or at what the outputs make of an embedding, make up for the errors of earlier layers, let biases
    take up the mean error, and need calibration data. Plugins may give further ones."""
    samples: Annotated[int, Field(ge=1)] = 512
    """Calibration examples that a method looks at, where there are so many: more make for better rounding."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples in a calibration batch."""
    damping: Annotated[float, Field(gt=0, le=1)] = 0.05
    """What `gptq` adds to the diagonal of the inputs' second moments, as a share of its mean."""

    def contract(self) -> Contract:
        looks = self.method in _LOOKING or self.budget is not None
        data = ("data.calibration",) if looks else ()
        # A part of the layers leaves others for a further quantizer, or for training.
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float", *data, *self.data_needs()),
            gives=("weights.quantized", *([f"weights.int{self.bits}"] if self.budget is None else [])),
            destroys=("weights.float", "weights.masked", "model.trainable") if whole else (),
        )

    def words(self) -> str:
        whole = "each output" if self.group_size is None else f"each group of {self.group_size} weights"
        kind = "symmetric" if self.symmetric else "asymmetric"
        how = "rounded to the nearest" if self.method == "rtn" else f"by {self.method}"
        budget = f"integers of 2 to 8 bits, {self.budget} bits a weight with scales"
        what = f"{self.bits}-bit integers" if self.budget is None else budget
        return f"store weights as {what}, {kind}, one scale for {whole}, {how}"

    @model_validator(mode="after")
    def _bits_or_budget(self) -> WeightOnlyConfig:
        if self.budget is not None and "bits" in self.model_fields_set:
            raise ValueError("give `bits` or a `budget`, not both")
        return self


class WeightOnly(Editor[WeightOnlyConfig]):
    """Rounds weights and swaps their layers for ones that hold integers."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.quantization import METHODS
        from demiglace_quantizers import _methods  # noqa: F401  # registers the built-in ones

        if self.config.method not in METHODS:
            hint = did_you_mean(self.config.method, METHODS, "the rounding methods")
            yield Problem(f"there is no rounding method {self.config.method!r}", ("method",), hint)
        yield from problems(model, self.config)
        yield from misfits(model, self.config, self._scheme())

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        model = model.with_layers()
        layers = [one for one in chosen(model, self.config, context) if fits(one, self._scheme(), context)]
        if not layers:
            raise nothing(self.config, context.left_alone)
        rounded = self._round(model, layers, context)
        report_weights(context, layers, rounded.weights)
        swaps = map(rounded.swap, layers)
        return within(model, grouped(layers, swaps), self.config.max_drop, context)

    def _scheme(self) -> Scheme:
        from demiglace.quantization import Scheme

        return Scheme(self.config.bits, self.config.symmetric, self.config.group_size)

    def _round(self, model: ModelGraph, layers: list[Layer], context: Context) -> Rounded:
        from demiglace.training import refuse
        from demiglace_quantizers._bits import schemes_within
        from demiglace_quantizers._nearest import alike

        refuse(self.preflight(model))
        rounded = partial(self._rounded, model, layers, context)
        if self.config.budget is None:
            return rounded(alike(layers, self._scheme()))
        return rounded(schemes_within(model, layers, self.config, context, rounded))

    def _rounded(
        self, model: ModelGraph, layers: list[Layer], context: Context, schemes: Mapping[int, Scheme]
    ) -> Rounded:
        """All weights as integers of these schemes, by the identity of the weight."""
        from demiglace.quantization import METHODS
        from demiglace_quantizers._by_inputs import round_by_inputs
        from demiglace_quantizers._nearest import round_each

        method = METHODS[self.config.method]
        if method.inputs:
            return round_by_inputs(model, layers, schemes, method, self.config, context)
        return round_each(layers, schemes, context, clip=self.config.clip, method=method.round)


SPEC = PassSpec(
    "quantize.weight_only",
    Kind.EDITOR,
    WeightOnlyConfig,
    "demiglace_quantizers.weight_only:WeightOnly",
    '[[pass]]\nuse = "quantize.weight_only"\nbits = 4\ngroup_size = 32\n',
)
