"""`quantize.qat`: training with the integers that weights and inputs will become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    moment_steps,
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
                *(("activations.int8",) if self.inputs == "int8" else ()),
            ),
            destroys=(
                *(("model.trainable",) if whole or self.inputs == "int8" else ()),
                *(("weights.float", "weights.masked") if whole else ()),
            ),
        )

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
        return problems(model, self.config)

    def prepare(self, loop: Loop) -> None:
        from demiglace_quantizers._qat import Trained

        at = loop.at
        self._trained = Trained(loop, self.config)
        self._ranges = moment_steps(self.config.freeze_ranges, at.steps, at.steps_per_epoch)
        self._norms = moment_steps(self.config.freeze_norms, at.steps, at.steps_per_epoch)

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
