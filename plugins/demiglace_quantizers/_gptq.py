"""`gptq`: later weights of a row make up for the error of earlier ones.

Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers").
"""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.quantization import (
    QTensor,
    Rounding,
    Scheme,
    fit_weight,
    grouped,
    inputs_of,
    rounding_method,
    to_integers,
    to_real,
)

_BLOCK = 128  # columns whose errors are passed on together
_GROWTH = 10.0  # of the damping while the matrix is not positive definite


@rounding_method("gptq", inputs=True)
def gptq(task: Rounding) -> QTensor:
    """Round column by column; what a column loses is made up for by those that are still to come."""
    weight, scheme = task.weight, task.scheme
    scale, zero, dtype = fit_weight(weight, scheme)
    size = grouped(weight, scheme).shape[-1]
    matrix = weight.flatten(1).float()
    wide = [one.expand(len(matrix), -1, size).flatten(1) for one in (scale, zero)]
    integers = _solve(matrix, inputs_of(task), wide[0], wide[1], scheme, task.damping)
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
