"""What a method of rounding learns of a layer: the moments of its inputs, or of gradients at its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demiglace.calibration import (
    CalibrationBatches,
    InputGram,
    OutputGram,
    calibrate,
    differentiable,
    projected,
)
from demiglace.errors import GraphError, UsageError

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context
    from demiglace.quantization import Layer


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Of a layer's inputs."""

    #: The mean of `x x^T`, `[groups, k, k]`.
    matrix: Tensor
    #: The mean of `x`, `[groups, k]`.
    mean: Tensor

    @property
    def covariance(self) -> Tensor:
        """What is left of the second moments where the bias takes up the mean error."""
        return self.matrix - self.mean.unsqueeze(2) * self.mean.unsqueeze(1)

    def mean_output(self, weight: Tensor) -> Tensor:
        """The mean output `[outputs]` of a weight of the layer's shape."""
        rows = weight.flatten(1).unflatten(0, (len(self.mean), -1))
        return torch.einsum("gok,gk->go", rows, self.mean.to(rows.dtype)).flatten()


def input_moments(
    model: ModelGraph, stage: Sequence[Sequence[str]], batches: CalibrationBatches, context: Context
) -> Iterator[tuple[str, InputMoments]]:
    """Each layer of a stage with its moments; those of one list read the same input.

    Raises:
        GraphError: when squares of the inputs are beyond float32.
    """
    grams = {names[0]: InputGram(torch.float32) for names in stage}
    calibrate(model, batches, grams, context, stop_early=True)
    for names in stage:
        gram = grams[names[0]]
        moments = InputMoments(gram.matrix / gram.rows, gram.total / gram.rows)
        if not moments.matrix.isfinite().all():
            raise GraphError(
                f"the inputs of layer {names[0]!r} are too large for their squares to be summed",
                hint='use method = "rtn", or look at where the model\'s activations grow',
            )
        for name in names:
            yield name, moments


def output_moments(
    model: ModelGraph, layers: Sequence[Layer], batches: CalibrationBatches, context: Context
) -> Mapping[str, Tensor]:
    """For embeddings the second moments `[1, k, k]` of the gradients at what they give.

    A row of the table is what the layer gives: what its error does to the model's outputs, only these know.
    Embeddings that the model does not call, or that its outputs do not follow, are left out.
    """
    tables = {layer.name: layer for layer in layers if isinstance(layer.module, nn.Embedding)}
    if not tables:
        return {}
    grams = {name: OutputGram() for name in tables}
    weights = [weight for layer in tables.values() for weight in layer.weights.values()]
    try:
        with differentiable(weights):
            calibrate(model, batches, grams, context, loss=partial(projected, generator=context.rng()))
    except UsageError as error:
        context.warn(f"embeddings are rounded to the nearest: {error}")
        return {}
    return {name: gram.matrix[None] for name, gram in grams.items() if gram.calls}
