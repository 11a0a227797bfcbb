"""What the model's outputs make of those of its layers: the moments of gradients there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from demiglace.calibration import (
    CalibrationBatches,
    OutputGram,
    calibrate,
    differentiable,
    in_parts,
    projected,
)
from demiglace.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph
    from demiglace.passes import Context
    from demiglace.quantization import Layer

_ELEMENTS = 1 << 24  # of second moments at a time, or
_SHARE = 1 / 8  # of the model's, where that is more
_EXAMPLES = 8  # whose activations are kept for a backward pass


def output_moments(
    model: ModelGraph, layers: Sequence[Layer], batches: CalibrationBatches, context: Context, unknown: str
) -> Mapping[str, Tensor] | None:
    """By layer the second moments `[k, k]` of the gradients at what it gives.

    Layers that the model does not call are left out, and those whose moments are not finite, with a warning.
    With a warning there are none at all where the model's outputs cannot be differentiated.

    Args:
        model: the model; its module must be on the context's device.
        layers: each with parameters.
        batches: what to run, already on that device.
        context: of the step.
        unknown: what to warn of where a layer's are not known.
    """
    if not layers:
        return {}
    grams = {layer.name: OutputGram() for layer in layers}
    weights = [weight for layer in layers for weight in layer.weights.values()]
    loss = partial(projected, generator=context.rng())
    try:
        with differentiable(weights, model.module):
            calibrate(model, in_parts(batches, _EXAMPLES), grams, context, loss=loss)
    except UsageError as error:
        context.warn(f"{unknown}: {error}")
        return None
    found = {}
    for name in list(grams):
        gram = grams.pop(name)  # its sums are as large as what is found
        if not gram.calls:
            continue
        matrix = gram.matrix
        if matrix.isfinite().all():
            found[name] = matrix
        else:
            context.warn(f"{unknown}: gradients at layer {name!r} are not finite")
    return found


class OutputMoments:
    """The moments of layers that are asked for in a known order, gathered for as many as fit into memory.

    Args:
        layers: in the order in which they will be asked for.
    """

    def __init__(
        self, model: ModelGraph, layers: Sequence[Layer], batches: CalibrationBatches, context: Context
    ) -> None:
        self._model, self._batches, self._context = model, batches, context
        size = sum(one.numel() for one in model.module.parameters())
        self._most = max(_ELEMENTS, _SHARE * size)
        self._left = [layer for layer in layers if _elements(layer) <= self._most]
        self._known: dict[str, Tensor] = {}

    def of(self, name: str) -> Tensor | None:
        """The moments of a layer, of the model as it is when they are gathered; none of one too wide."""
        if self._left and self._left[0].name == name:
            self._gather()
        return self._known.pop(name, None)

    def _gather(self) -> None:
        count = total = 0
        for layer in self._left:
            total += _elements(layer)
            if total > self._most:
                break
            count += 1
        taken, self._left = self._left[:count], self._left[count:]
        unknown = "errors of one output are not made up for by others"
        known = output_moments(self._model, taken, self._batches, self._context, unknown)
        if known is None:
            self._left = []
        else:
            self._known.update(known)


def _elements(layer: Layer) -> int:
    (weight,) = layer.weights.values()
    return len(weight) ** 2
