"""What a method of rounding learns of a layer: the moments of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demiglace.calibration import (
    CalibrationBatches,
    InputGram,
    InputsOf,
    PairedGram,
    Replay,
    calibrate,
    calibrate_beside,
)
from demiglace.errors import GraphError

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context


_RIDGE = 1.0  # of the inputs' mean power: along weaker inputs, weights stay where they are


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Of a layer's inputs `x`, and of the inputs `y` that the layer gets in the original."""

    #: The mean of `x x^T`, `[groups, k, k]`.
    matrix: Tensor
    #: The mean of `x`, `[groups, k]`.
    mean: Tensor
    #: The mean of `y x^T`, `[groups, k, k]`; `None` where there was no original to look at.
    across: Tensor | None = None
    #: The mean of `y`, `[groups, k]`.
    original_mean: Tensor | None = None

    @property
    def covariance(self) -> Tensor:
        """What is left of the second moments where the bias takes up the mean error."""
        return self.matrix - self.mean.unsqueeze(2) * self.mean.unsqueeze(1)

    def making_up(self, weight: Tensor, *, biased: bool) -> Tensor:
        """A layer's weight, moved towards what gives the original's outputs on these inputs.

        Ridge regression towards the weight itself, with the power of a usual input: what a sample tells of
        the errors of earlier layers is true of all data along strong inputs only. That rounding should aim
        at the original's outputs is from Li et al. 2025 ("GPTAQ").

        Args:
            weight: of the layer's shape, floating point.
            biased: whether a bias takes up the mean error.
        """
        if self.across is None or self.original_mean is None:
            return weight
        matrix, lost = self.matrix, self.across - self.matrix
        if biased:
            matrix = self.covariance
            lost = lost - (self.original_mean - self.mean).unsqueeze(2) * self.mean.unsqueeze(1)
        matrix = matrix.clone()
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += _RIDGE * diagonal.mean(1, keepdim=True)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed.any():
            return weight
        rows = weight.flatten(1).unflatten(0, (len(matrix), -1)).to(matrix.dtype)
        moved = torch.cholesky_solve((rows @ lost).transpose(1, 2), factor).transpose(1, 2)
        return weight + moved.reshape(weight.shape).to(weight.dtype)

    def mean_error(self, weight: Tensor, rounded: Tensor) -> Tensor:
        """How much the outputs' mean `[outputs]` of a rounded weight is below that of the original."""
        wanted = self.mean if self.original_mean is None else self.original_mean
        return _mean_output(weight, wanted) - _mean_output(rounded, self.mean)


def _mean_output(weight: Tensor, mean: Tensor) -> Tensor:
    rows = weight.flatten(1).unflatten(0, (len(mean), -1))
    return torch.einsum("gok,gk->go", rows, mean.to(rows.dtype)).flatten()


def input_moments(
    model: ModelGraph,
    stage: Sequence[Sequence[str]],
    batches: CalibrationBatches,
    context: Context,
    replay: Replay | None = None,
    original: Replay | None = None,
) -> Iterator[tuple[str, InputMoments]]:
    """Each layer of a stage with its moments; those of one list read the same input.

    Args:
        model: the model.
        stage: names of its layers.
        batches: what to run.
        context: of the step.
        replay: of the model on these batches; if each stage comes after those before.
        original: that of the module without the errors for which the stage's last list makes up.

    Raises:
        GraphError: when squares of the inputs are beyond float32.
    """
    for name, moments in zip(stage, _gathered(model, stage, batches, context, replay, original), strict=True):
        if not moments.matrix.isfinite().all():
            raise GraphError(
                f"the inputs of layer {name[0]!r} are too large for their squares to be summed",
                hint='use method = "rtn", or look at where the model\'s activations grow',
            )
        for each in name:
            yield each, moments


def _gathered(
    model: ModelGraph,
    stage: Sequence[Sequence[str]],
    batches: CalibrationBatches,
    context: Context,
    replay: Replay | None,
    original: Replay | None,
) -> Iterator[InputMoments]:
    """The moments of each list of a stage, whose matrices are made when they are asked for."""
    grams = {names[0]: InputGram(torch.float32) for names in stage}
    if original is None:
        calibrate(model, batches, grams, context, stop_early=True, replay=replay)
    else:
        # All lists of a stage see the same errors of earlier ones: only the last makes up for them.
        last = stage[-1][0]
        grams[last] = pair = PairedGram(torch.float32)
        shown, replays = {last: InputsOf(pair)}, (original, replay)
        calibrate_beside(original.module, model, batches, shown, grams, context, replays=replays)
    for gram in grams.values():
        sums = [gram.matrix, gram.total]
        if isinstance(gram, PairedGram) and gram.paired:
            sums += [gram.across, gram.others_total]
        # In place: the sums are not needed any more, and may be large.
        yield InputMoments(*(one.div_(gram.rows) for one in sums))
