"""`gptq`: later weights of a row make up for the error of earlier ones.

Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from demiglace.quantization import (
    QTensor,
    Rounding,
    fit_weight,
    grouped,
    inputs_of,
    rounding_method,
    to_integers,
    to_real,
)
from demiglace_quantizers._output_error import output_error

Decide: TypeAlias = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""From a column's weights `[groups, outputs]` as errors so far have changed them, its place in the matrix,
and what a squared error in it costs once later columns have made up for it `[groups, 1]`: integers and the
real numbers that these stand for."""

_BLOCK = 128  # columns whose errors are passed on together
_GROWTH = 10.0  # of the damping while the matrix is not positive definite


@rounding_method("gptq", inputs=True)
def gptq(task: Rounding) -> QTensor:
    """Round column by column; what a column loses is made up for by those that are still to come.

    With `clip`, a row has clipped ranges where its outputs err less with these than with whole ones.
    """
    moments, groups = inputs_of(task), grouped(task.weight, task.scheme).float()
    whole = _solved(task, clip=False)
    if task.clip:
        clipped = _solved(task, clip=True)
        errors = [
            output_error(groups - to_real(one.integers, one.scale, one.zero), moments)
            for one in (whole, clipped)
        ]
        whole = whole.where((errors[0] <= errors[1]).view(-1, 1, 1), clipped)
    return QTensor.of(
        whole.integers, whole.scale, whole.zero, task.scheme, tuple(task.weight.shape), scales=whole.dtype
    )


@dataclass(frozen=True, eq=False)
class _Solved:
    """Integers `[rows, groups, size]` with scales and zero points `[rows, groups, 1]`."""

    integers: Tensor
    scale: Tensor
    zero: Tensor
    #: That keeps the scales.
    dtype: torch.dtype

    def where(self, keep: Tensor, other: _Solved) -> _Solved:
        """These in the rows of `keep`, others in the rest."""
        return _Solved(
            torch.where(keep, self.integers, other.integers),
            torch.where(keep, self.scale, other.scale),
            torch.where(keep, self.zero, other.zero),
            self.dtype,
        )


def _solved(task: Rounding, *, clip: bool) -> _Solved:
    weight, scheme, moments = task.weight, task.scheme, inputs_of(task)
    scale, zero, dtype = fit_weight(weight, scheme, clip=clip)
    size = grouped(weight, scheme).shape[-1]
    scales, zeros = (
        one.expand(len(weight), -1, size).flatten(1).unflatten(0, (len(moments), -1)) for one in (scale, zero)
    )

    def decide(now: Tensor, column: int, _: Tensor) -> tuple[Tensor, Tensor]:
        s, z = scales[:, :, column], zeros[:, :, column]
        chosen = to_integers(now, s, z, scheme)
        return chosen, to_real(chosen, s, z)

    integers = compensated(weight.flatten(1).float(), moments, task.damping, decide)
    return _Solved(integers.unflatten(1, (-1, size)), scale, zero, dtype)


def compensated(matrix: Tensor, moments: Tensor, damping: float, decide: Decide) -> Tensor:
    """Integers `[outputs, k]` for a matrix, column by column, each making up for those before.

    Columns go in the order of falling input power, so that the last, which nothing can make up for, matter
    least.

    Args:
        matrix: float32 `[outputs, k]`.
        moments: of the inputs, `[groups, k, k]`.
        damping: what to add to their diagonal, as a share of its mean.
        decide: chooses the integers of one column.
    """
    order, factor = _ordered(moments, damping)
    left, columns = matrix.unflatten(0, (moments.shape[0], -1))[:, :, order], order.tolist()
    integers = torch.empty_like(left)
    for start in range(0, left.shape[2], _BLOCK):
        stop = min(start + _BLOCK, left.shape[2])
        errors = torch.zeros_like(left[:, :, start:stop])
        for column in range(start, stop):
            now, root = left[:, :, column], factor[:, None, column, column]
            integers[:, :, column], real = decide(now, columns[column], root.square().reciprocal())
            error = (now - real) / root
            left[:, :, column:stop] -= error.unsqueeze(2) * factor[:, None, column, column:stop]
            errors[:, :, column - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return integers[:, :, order.argsort()].flatten(0, 1)


def column_costs(moments: Tensor, damping: float) -> Tensor:
    """What a squared error in each column costs once later columns have made up for it, `[groups, k]`."""
    order, factor = _ordered(moments, damping)
    return factor.diagonal(dim1=1, dim2=2).square().reciprocal()[:, order.argsort()]


def _ordered(moments: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """The order of columns by falling input power, and the factor of the moments in this order."""
    order = moments.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    return order, _factor(moments[:, order][:, :, order], damping)


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
