"""Rounding by GPTQ: later weights of a row make up for the error of earlier ones.

Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"),
on the inputs that the already quantized layers before it give.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from demiglace.calibration import InputGram, calibrate, calibration_batches, execution_order, has_input_rows
from demiglace.graph import apply
from demiglace.passes import Context
from demiglace.quantization import (
    Layer,
    QTensor,
    Scheme,
    fit_weight,
    grouped,
    round_weight,
    to_integers,
    to_real,
)
from demiglace_quantizers._nearest import Rounded

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph

_BLOCK = 128  # columns whose errors are passed on together
_GROWTH = 10.0  # of the damping while the matrix is not positive definite
_ROUNDS = 12  # calibration runs at most: layers that follow each other share one


class Options(Protocol):
    """What GPTQ takes from a pass's options."""

    @property
    def clip(self) -> bool: ...
    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def damping(self) -> float: ...


def round_by_gptq(
    model: ModelGraph, layers: list[Layer], scheme: Scheme, options: Options, context: Context
) -> Rounded:
    """Every weight of the layers as integers; the model is left as it was.

    Layers without input statistics (embeddings, attention's own projections, weights that several layers
    share, what the model never calls) are rounded to the nearest first, so that the others see them so.
    """
    batches = calibration_batches(context, options.samples, options.batch_size)
    solvable = {layer.name: layer for layer in layers if _solvable(layer, layers)}
    stages = execution_order(model, next(iter(batches)), solvable)
    reached = set(chain.from_iterable(stages))
    first = [layer for layer in layers if layer.name not in reached]
    done = Rounded()
    for weight in chain.from_iterable(layer.weights.values() for layer in first):
        done.weights[id(weight)] = round_weight(weight, scheme, clip=options.clip)
    quiet = Context(context.seed, context.device, check_interrupt=context.check_interrupt)
    transaction = apply(model, map(done.swap, first))
    try:
        for stage in context.track(list(_merged(stages)), "rounding by GPTQ"):
            # Layers of one list read the same input.
            grams = {names[0]: InputGram(torch.float32) for names in stage}
            calibrate(model, batches, grams, quiet, stop_early=True)
            for names in stage:
                moments = grams[names[0]].matrix / grams[names[0]].rows
                for layer in map(solvable.__getitem__, names):
                    (weight,) = layer.weights.values()
                    done.weights[id(weight)] = gptq(weight.detach(), moments, scheme, options.damping)
                    transaction.apply(done.swap(layer))
    finally:
        transaction.rollback()
    return done


def _solvable(layer: Layer, layers: list[Layer]) -> bool:
    """Whether a layer has rows of inputs and its weight to itself."""
    own = {id(weight) for weight in layer.weights.values()}
    alone = not any(
        own & {id(one) for one in other.weights.values()} for other in layers if other is not layer
    )
    return alone and has_input_rows(layer.module)


def _merged(stages: list[list[str]]) -> Iterator[list[list[str]]]:
    """At most `_ROUNDS` runs of stages that follow each other."""
    size = -(-len(stages) // _ROUNDS)
    for start in range(0, len(stages), size):
        yield stages[start : start + size]


def gptq(weight: Tensor, moments: Tensor, scheme: Scheme, damping: float) -> QTensor:
    """One weight as integers.

    Args:
        weight: `[outputs, ...]`; its outputs fall into as many groups as `moments` has.
        moments: the mean of `x x^T` over the layer's inputs, `[groups, k, k]`.
        scheme: the integers to round to.
        damping: what is added to the diagonal, as a share of its mean.
    """
    scale, zero, dtype = fit_weight(weight, scheme)
    size = grouped(weight, scheme).shape[-1]
    matrix = weight.flatten(1).float()
    wide = [one.expand(len(matrix), -1, size).flatten(1) for one in (scale, zero)]
    integers = _solve(matrix, moments, wide[0], wide[1], scheme, damping)
    return QTensor.of(
        integers.unflatten(1, (-1, size)), scale, zero, scheme, tuple(weight.shape), scales=dtype
    )


def _solve(
    matrix: Tensor, moments: Tensor, scale: Tensor, zero: Tensor, scheme: Scheme, damping: float
) -> Tensor:
    """Integers `[outputs, k]` for a matrix with scales and zero points of its shape.

    Columns go in the order of falling input power, so that the last, which nothing can make up for, matter
    least.
    """
    groups = moments.shape[0]
    left, scales, zeros = (one.unflatten(0, (groups, -1)).clone() for one in (matrix, scale, zero))
    order = moments.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    factor = _factor(moments[:, order][:, :, order], damping)
    left, scales, zeros = (one[:, :, order] for one in (left, scales, zeros))
    integers = torch.empty_like(left)
    for start in range(0, left.shape[2], _BLOCK):
        stop = min(start + _BLOCK, left.shape[2])
        errors = torch.zeros_like(left[:, :, start:stop])
        for column in range(start, stop):
            s, z = scales[:, :, column], zeros[:, :, column]
            now = left[:, :, column]
            integers[:, :, column] = to_integers(now, s, z, scheme)
            error = (now - to_real(integers[:, :, column], s, z)) / factor[:, None, column, column]
            left[:, :, column:stop] -= error.unsqueeze(2) * factor[:, None, column, column:stop]
            errors[:, :, column - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return integers[:, :, order.argsort()].flatten(0, 1)


def _factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped matrix's inverse, `[groups, k, k]`, in float32.

    Damping grows until the matrix is positive definite: constant or absent inputs make it singular.
    """
    while True:
        lower, failed = torch.linalg.cholesky_ex(_damped(moments, damping))
        if not failed.any():
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed.any():
                return upper.float()
        damping *= _GROWTH


def _damped(moments: Tensor, damping: float) -> Tensor:
    """The moments in float64 with a share of their mean power added to the diagonal; never all zero."""
    wide = moments.double()
    mean = wide.diagonal(dim1=1, dim2=2).mean(1)
    mean = torch.where(mean > 0, mean, 1.0)
    eye = torch.eye(wide.shape[1], dtype=wide.dtype, device=wide.device)
    return wide + damping * mean.view(-1, 1, 1) * eye
