"""How much a model's outputs change when a row of a weight does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demiglace.calibration.batches import empty
from demiglace.calibration.undisturbed import differentiable, undisturbed
from demiglace.calibration.watch import (
    differentiated,
    padding,
    refuse_nonfinite_data,
    run_batch,
    without_padding,
)
from demiglace.data import leaves
from demiglace.errors import UsageError

if TYPE_CHECKING:
    from demiglace.data import Batch
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context


def row_sensitivities(
    model: ModelGraph, weights: Mapping[str, Tensor], batches: Iterable[Batch], context: Context
) -> dict[str, Tensor]:
    """By weight, what a small error in one element of a row adds to the outputs' squared error.

    The diagonal of the Gauss-Newton matrix, meaned over each row: for outputs `f`, the mean over examples of
    `sum |df/dw|^2`. One backward pass a batch estimates it: the gradient of `v . f` with random signs `v`
    has it as its expected square (Hutchinson 1990).

    Rows that no batch reaches, the words of an embedding that did not come, matter as much as those that
    only one batch reached would have without that batch (the leave-one-out of Good 1953).

    Args:
        model: the model; its module must be on the context's device.
        weights: parameters by name, of at least one dimension; frozen ones too.
        batches: what to run, already on that device; labels are not looked at.
        context: the randomness, progress and interrupts.

    Returns:
        Float64 `[rows]` on the CPU for each weight that the outputs depend on, at least 0.

    Raises:
        UsageError: when there is no batch, or no weight has a gradient.
        GraphError: for NaN or infinity in the data.
    """
    sums = {name: torch.zeros(len(weight), dtype=torch.float64) for name, weight in weights.items()}
    reached = {name: torch.zeros(len(weight), dtype=torch.int64) for name, weight in weights.items()}
    generator, examples = context.rng(), 0
    with (
        undisturbed(model.module, context.device, gradients=True),
        differentiable(weights.values()),
    ):
        for batch in context.track(batches, "weighing rows"):
            if len(batch) == 0:
                continue
            refuse_nonfinite_data(batch)
            loss = projected(run_batch(model.module, batch), batch, generator)
            gradients = differentiated(loss, list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    squares = gradient.flatten(1).double().square().mean(1).cpu()
                    sums[name] += squares
                    reached[name] += squares > 0
            examples += len(batch)
    if examples == 0:
        raise empty()
    return {name: _smoothed(one, reached[name]) / examples for name, one in sums.items() if one.any()}


def projected(outputs: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """The sum of all floating-point outputs with random signs, padding left out.

    Its squared gradient is in the mean the sum of the squared gradients of all outputs.

    Raises:
        UsageError: when no output has a gradient.
    """
    terms = []
    for leaf in _floats(outputs):
        value = without_padding(leaf, padding(batch))
        signs = torch.randint(0, 2, value.shape, generator=generator).to(value.device) * 2 - 1
        terms.append((value.float() * signs).sum())
    if not terms:
        raise UsageError(
            "no gradient reaches the weights from the model's outputs",
            hint="let forward return floating-point tensors that are made by differentiable operators",
        )
    return torch.stack(terms).sum()


def _floats(outputs: Any) -> Iterator[Tensor]:
    for leaf in leaves(outputs):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad:
            yield leaf


def _smoothed(sums: Tensor, reached: Tensor) -> Tensor:
    """Sums with what rows that no batch reached would have got from one more."""
    once, unsure = reached == 1, reached <= 1
    unseen = float(sums[once].sum()) / int(unsure.sum()) if (reached == 0).any() else 0.0
    return sums + unseen
