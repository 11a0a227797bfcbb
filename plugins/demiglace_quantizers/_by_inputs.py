"""Rounding by methods that look at a layer's inputs: those that the already rounded layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import torch

from demiglace.calibration import InputGram, calibrate, calibration_batches, execution_order, has_input_rows
from demiglace.errors import GraphError
from demiglace.graph import apply
from demiglace.passes import Context
from demiglace.quantization import Layer, QTensor, Rounding, RoundingMethod, Scheme
from demiglace_quantizers._nearest import Rounded, nearest

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph

_ROUNDS = 12  # calibration runs at most: layers that follow each other share one


class Options(Protocol):
    """What it takes from a pass's options."""

    @property
    def clip(self) -> bool: ...
    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def damping(self) -> float: ...


def round_by_inputs(
    model: ModelGraph,
    layers: Sequence[Layer],
    scheme: Scheme,
    method: RoundingMethod,
    options: Options,
    context: Context,
    *,
    blind: Callable[[Rounding], QTensor] = nearest,
) -> Rounded:
    """Every weight of the layers as integers; the model is left as it was.

    Layers without input statistics (embeddings, attention's own projections, weights that several layers
    share, what the model never calls) are rounded by `blind` first, so that the others see them so.
    """
    batches = calibration_batches(context, options.samples, options.batch_size)
    solvable = {layer.name: layer for layer in layers if has_own_rows(layer, layers)}
    stages = execution_order(model, batches.first(), solvable)
    reached = set(chain.from_iterable(stages))
    first = [layer for layer in layers if layer.name not in reached]
    done = Rounded()
    for weight in chain.from_iterable(layer.weights.values() for layer in first):
        if id(weight) not in done.weights:
            done.weights[id(weight)] = blind(Rounding(weight.detach(), scheme, clip=options.clip))
    quiet = Context(context.seed, context.device, check_interrupt=context.check_interrupt)
    transaction = apply(model, map(done.swap, first))
    try:
        for stage in context.track(list(_merged(stages)), f"rounding by {method.name}"):
            # Layers of one list read the same input.
            grams = {names[0]: InputGram(torch.float32) for names in stage}
            calibrate(model, batches, grams, quiet, stop_early=True)
            for name, moments in moments_of(stage, grams):
                layer = solvable[name]
                (weight,) = layer.weights.values()
                task = Rounding(weight.detach(), scheme, moments, options.clip, options.damping)
                done.weights[id(weight)] = method.round(task)
                transaction.apply(done.swap(layer))
    finally:
        transaction.rollback()
    return done


def has_own_rows(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Whether a layer has rows of inputs and its weight to itself."""
    own = {id(weight) for weight in layer.weights.values()}
    alone = not any(
        own & {id(one) for one in other.weights.values()} for other in layers if other is not layer
    )
    return alone and has_input_rows(layer.module)


def moments_of(stage: list[list[str]], grams: Mapping[str, InputGram]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each layer with the second moments of its inputs, which were gathered under its list's first name.

    Raises:
        GraphError: when squares of the inputs are beyond float32.
    """
    for names in stage:
        moments = grams[names[0]].matrix / grams[names[0]].rows
        if not moments.isfinite().all():
            raise GraphError(
                f"the inputs of layer {names[0]!r} are too large for their squares to be summed",
                hint='use method = "rtn", or look at where the model\'s activations grow',
            )
        for name in names:
            yield name, moments


def _merged(stages: list[list[str]]) -> Iterator[list[list[str]]]:
    """At most `_ROUNDS` runs of stages that follow each other."""
    size = max(1, -(-len(stages) // _ROUNDS))
    for start in range(0, len(stages), size):
        yield stages[start : start + size]
