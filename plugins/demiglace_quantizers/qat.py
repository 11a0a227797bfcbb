"""`quantize.qat`: training with the integers that weights and inputs will become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from demiglace.passes import (
    Contract,
    Kind,
    Loop,
    Moment,
    Participant,
    PassSpec,
    Position,
    Problem,
    Targeted,
    moment_within,
    moment_words,
)
from demiglace_quantizers._layers import problems

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class QatConfig(Targeted):
    """Train while the weights compute as integers of 8 to 2 bits, and make them integers in the end.

    Weights are symmetric, each output with a step size that is learned. Linear layers and convolutions end
    as those of `quantize.static`, all others as those of `quantize.weight_only`. Pruners of weights can take
    part beside it; structures are cut before.
    """

    bits: Literal[8, 6, 4, 3, 2] = 8
    """Bits of a weight; 2 bits are ternary: -1, 0 and 1 times the step size."""
    inputs: Literal["int8", "float"] = "int8"
    """`int8`: linear layers and one- and two-dimensional convolutions round their inputs to 8 bits as well;
    `float`: no layer does."""
    freeze_ranges: Moment = 0.5
    """From when on the ranges of inputs stay as they are: a share of the training, `"3 epochs"`, or
    `"500 steps"`. Before, they follow the training batches."""
    freeze_norms: Moment = 0.75
    """From when on batch norms use their running statistics, as they will in the end."""

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float",),
            gives=(
                *("weights.quantized", f"weights.int{self.bits}"),
                *(("activations.int8", "products.int8") if self.inputs == "int8" else ()),
            ),
            destroys=(
                *(("model.trainable",) if whole or self.inputs == "int8" else ()),
                *(("weights.float", "weights.masked") if whole else ()),
            ),
            # What cuts finds layers that round, and would have to cut their step sizes too.
            excludes=("channels.removed", "blocks.removed") if whole else (),
        )

    def moments(self) -> Mapping[str, Moment]:
        return {"freeze_ranges": self.freeze_ranges, "freeze_norms": self.freeze_norms}

    def words(self) -> str:
        kind = "ternary" if self.bits == 2 else f"{self.bits}-bit"
        inputs = "8-bit inputs" if self.inputs == "int8" else "inputs as they are"
        return (
            f"learn {kind} weights, {inputs}; ranges stay from {moment_words(self.freeze_ranges)} on, "
            f"batch norms from {moment_words(self.freeze_norms)} on"
        )


class Qat(Participant[QatConfig]):
    """Swaps layers for ones that round in `prepare`, and for ones that hold integers in `finish`."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.graph.plain import PlainGraph

        if isinstance(model.module, PlainGraph):
            yield Problem(
                "the model is a plain-data graph, whose layers cannot round while they train",
                hint="train with integers before structures are cut, or quantize after the training",
            )
        else:
            yield from problems(model, self.config)

    def prepare(self, loop: Loop) -> None:
        from demiglace.training import refuse
        from demiglace_quantizers._qat import Trained

        refuse(self.preflight(loop.model))
        length = (loop.at.steps, loop.at.steps_per_epoch)
        self._ranges = moment_within(self.config.freeze_ranges, *length, "`freeze_ranges` comes")
        self._norms = moment_within(self.config.freeze_norms, *length, "`freeze_norms` comes")
        self._trained = Trained(loop, self.config)

    def before_step(self, at: Position) -> None:
        if at.step >= self._ranges:
            self._trained.freeze_ranges()
        if at.step >= self._norms:
            self._trained.freeze_norms()

    def finish(self) -> Iterable[Edit]:
        return self._trained.integers()


SPEC = PassSpec(
    "quantize.qat",
    Kind.PARTICIPANT,
    QatConfig,
    "demiglace_quantizers.qat:Qat",
    """\
[[pass]]
use = "train.supervised"
epochs = 3

[[pass.with]]
use = "quantize.qat"
bits = 4
""",
)
