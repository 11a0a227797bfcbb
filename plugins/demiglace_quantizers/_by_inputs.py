"""Rounding by methods that look at data: each layer on what the already rounded layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from torch import nn

from demiglace.calibration import (
    CalibrationBatches,
    Calls,
    Replay,
    calibration_batches,
    execution_order,
    has_input_rows,
)
from demiglace.graph import apply
from demiglace.passes import Context
from demiglace.quantization import Layer, QTensor, Rounding, RoundingMethod, Scheme, has_own_forward
from demiglace_quantizers._moments import InputMoments, input_moments
from demiglace_quantizers._nearest import Rounded, nearest
from demiglace_quantizers._output_moments import OutputMoments, output_moments

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph

_ROUNDS = 24  # calibration runs at most: layers that follow each other share one


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
    schemes: Mapping[int, Scheme],
    method: RoundingMethod,
    options: Options,
    context: Context,
    *,
    blind: Callable[[Rounding], QTensor] | None = None,
    corrected: bool = True,
) -> Rounded:
    """Every weight of the layers as integers; the model is left as it was.

    Layers without input statistics (embeddings, attention's own projections, weights that several layers
    share, what the model never calls) come first, so that the others see them rounded.

    Args:
        model: the model.
        layers: whose weights to round.
        schemes: by the identity of the weight.
        method: how.
        options: of the pass.
        context: of the step.
        blind: rounds weights of the layers without input statistics. By default embeddings are rounded by
            the method, on what the model's outputs make of what they give, and others to the nearest.
        corrected: let each layer make up for the errors of those before it, and biases take up the mean error
            of their layers' outputs.
    """
    batches = calibration_batches(context, options.samples, options.batch_size)
    solvable, stages = _in_order(model, layers, batches)
    quiet, blindly = _quiet(context), blind or nearest
    work = _Work(schemes, method, options, blindly, corrected, context.check_interrupt)
    reached = set(chain.from_iterable(chain.from_iterable(stages)))
    first = [layer for layer in layers if layer.name not in reached]
    tables = [one for one in first if isinstance(one.module, nn.Embedding) and _alone(one, layers)]
    tables = [] if blind else tables
    known = output_moments(model, tables, batches, quiet, "embeddings are rounded to the nearest") or {}
    for layer in context.track(first, "rounding tables"):
        work.round_first(layer, known.get(layer.name))
    room = _bytes(model.module) // 2  # for what each of the two models answers
    transaction = apply(model, [work.done.swap(layer) for layer in first if layer.name in known])
    try:
        # What the outputs hardly see of a table's errors is no error for the layers behind it to make up for.
        calls = Calls.of(model.module, batches.first())
        replay = Replay(model.module, calls, room)
        original = Replay(_sharing(model.module), calls, room) if corrected else None
        for layer in first:
            if layer.name not in known:
                transaction.apply(work.done.swap(layer))
        outputs = OutputMoments(model, _seen(solvable, stages) if method.outputs else [], batches, quiet)
        for stage in context.track(stages, f"rounding by {method.name}"):
            for name, moments in input_moments(model, stage, batches, quiet, replay, original):
                work.round(solvable[name], moments, outputs.of(name))
                transaction.apply(work.done.swap(solvable[name]))
    finally:
        transaction.rollback()
    return work.done


def _in_order(
    model: ModelGraph, layers: Sequence[Layer], batches: CalibrationBatches
) -> tuple[dict[str, Layer], list[list[list[str]]]]:
    """The layers that are known by their inputs, and the order of their calls in at most `_ROUNDS` stages.

    Layers that follow each other share a stage. In a stage, those of one list read the same input.
    """
    solvable = {one.name: one for one in layers if has_own_rows(one, layers)}
    order = execution_order(model, batches.first(), solvable)
    size = max(1, -(-len(order) // _ROUNDS))
    return solvable, [order[start : start + size] for start in range(0, len(order), size)]


def _seen(layers: Mapping[str, Layer], stages: Sequence[Sequence[Sequence[str]]]) -> list[Layer]:
    """The layers in the order of the stages, less those whose outputs fall into groups with own inputs."""
    names = chain.from_iterable(chain.from_iterable(stages))
    return [layers[name] for name in names if getattr(layers[name].module, "groups", 1) == 1]


def _bytes(module: nn.Module) -> int:
    """Of a model's parameters."""
    return sum(one.nbytes for one in module.parameters())


def _sharing(module: nn.Module) -> nn.Module:
    """A copy that shares the module's tensors: layers that take the place of the module's do not reach it."""
    tensors = chain(module.parameters(), module.buffers())
    return deepcopy(module, {id(one): one for one in tensors})


def _quiet(context: Context) -> Context:
    """The same step's, without its progress."""
    return Context(
        context.seed, context.device, check_interrupt=context.check_interrupt, on_warning=context.warn
    )


class _Work:
    """Rounds layers one by one."""

    def __init__(
        self,
        schemes: Mapping[int, Scheme],
        method: RoundingMethod,
        options: Options,
        blind: Callable[[Rounding], QTensor],
        corrected: bool,
        check_interrupt: Callable[[], None],
    ) -> None:
        self.schemes, self.method, self.options = schemes, method, options
        self.blind, self.corrected, self.check_interrupt = blind, corrected, check_interrupt
        self.done = Rounded()

    def round_first(self, layer: Layer, outputs: Tensor | None) -> None:
        """Round a layer that is not known by its inputs; an embedding by what is made of its outputs."""
        method = self.blind if outputs is None else self.method.round
        # A row of an embedding is what it gives: its weights make up for each other there.
        moments = None if outputs is None else outputs[None]
        for weight in layer.weights.values():
            if id(weight) not in self.done.weights:
                self.done.weights[id(weight)] = method(self._task(weight, weight.detach(), moments))

    def round(self, layer: Layer, moments: InputMoments, outputs: Tensor | None) -> None:
        """Round a layer by its inputs, and by what is made of its outputs where that is known.

        Its bias, if it has one, takes up the mean error.
        """
        (weight,) = layer.weights.values()
        bias = layer.module._parameters.get("bias") if self.corrected else None
        matrix = moments.matrix if bias is None else moments.covariance
        wanted = moments.making_up(weight.detach(), biased=bias is not None)
        self.done.weights[id(weight)] = rounded = self.method.round(
            self._task(weight, wanted, matrix, outputs)
        )
        if bias is not None:
            error = moments.mean_error(weight.detach(), rounded.dequantize(weight.dtype))
            self.done.biases[layer.name] = bias.detach() + error

    def _task(
        self, weight: Tensor, wanted: Tensor, moments: Tensor | None, outputs: Tensor | None = None
    ) -> Rounding:
        scheme, options = self.schemes[id(weight)], self.options
        given = (wanted, scheme, moments, outputs, options.clip, options.damping)
        return Rounding(*given, check_interrupt=self.check_interrupt)


def has_own_rows(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Whether a layer has rows of inputs and its weight to itself."""
    rows = has_input_rows(layer.module) and not has_own_forward(layer.module)
    return rows and _alone(layer, layers)


def _alone(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Whether a layer has its weight to itself."""
    own = {id(weight) for weight in layer.weights.values()}
    return not any(
        own & {id(one) for one in other.weights.values()} for other in layers if other is not layer
    )
