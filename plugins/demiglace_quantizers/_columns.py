"""Errors of earlier columns of a weight made up for by later ones, as the inputs' moments allow.

Hassibi & Stork 1993 ("Second order derivatives for network pruning: Optimal Brain Surgeon"), in the order and
by the factor of Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Decide: TypeAlias = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""From a column's weights `[groups, outputs]` as errors so far have changed them, its place in the matrix,
and what a squared error in it costs once later columns have made up for it `[groups, 1]`: integers and the
real numbers that these stand for."""

_BLOCK = 128  # columns whose errors are passed on together
_GROWTH = 10.0  # of the damping while the matrix is not positive definite


@dataclass(frozen=True, eq=False)
class Columns:
    """How the error of each column of a weight passes on to those that come after it."""

    #: Columns by falling input power: the last, which nothing can make up for, matter least.
    order: Tensor
    #: The upper Cholesky factor of the inverse of the damped moments in this order, `[groups, k, k]`.
    factor: Tensor

    @classmethod
    def of(cls, moments: Tensor, damping: float) -> Columns:
        """From the moments of the inputs `[groups, k, k]`.

        Args:
            moments: symmetric and not negative; may be singular.
            damping: what to add to their diagonal, as a share of its mean.
        """
        order = moments.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
        return cls(order, _factor(moments[:, order][:, :, order], damping))

    @property
    def costs(self) -> Tensor:
        """What a squared error in each column costs once later columns have made up for it, `[groups, k]`."""
        return self.factor.diagonal(dim1=1, dim2=2).square().reciprocal()[:, self.order.argsort()]


def compensated(matrix: Tensor, columns: Columns, decide: Decide) -> Tensor:
    """Integers `[outputs, k]` for a matrix, column by column, each making up for those before.

    Args:
        matrix: float32 `[outputs, k]`.
        columns: their order, and how errors pass on.
        decide: chooses the integers of one column.
    """
    order, factor = columns.order, columns.factor
    roots = factor.diagonal(dim1=1, dim2=2).T.unsqueeze(2)
    costs = roots.square().reciprocal()
    # Columns one behind the other in memory, since each is worked on as a whole: `[groups, k, outputs]`.
    left = matrix.unflatten(0, (len(factor), -1))[:, :, order].transpose(1, 2).contiguous()
    integers, places = torch.empty_like(left), order.tolist()
    for start in range(0, len(places), _BLOCK):
        stop = min(start + _BLOCK, len(places))
        errors = torch.empty_like(left[:, start:stop])
        for column in range(start, stop):
            now = left[:, column]
            integers[:, column], real = decide(now, places[column], costs[column])
            error = torch.div(now - real, roots[column], out=errors[:, column - start])
            passed_on = factor[:, column, column + 1 : stop].unsqueeze(2)
            left[:, column + 1 : stop].addcmul_(passed_on, error.unsqueeze(1), value=-1)
        left[:, stop:].baddbmm_(factor[:, start:stop, stop:].transpose(1, 2), errors, alpha=-1)
    return integers[:, order.argsort()].transpose(1, 2).flatten(0, 1)


def _factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped matrix's inverse, `[groups, k, k]`, in float32.

    Damping grows until the matrix is positive definite: constant or absent inputs make it singular.
    """
    while True:
        lower, failed = torch.linalg.cholesky_ex(_damped(moments, damping))
        if not failed.any():
            inverse = torch.cholesky_inverse(lower)
            del lower  # wide matrices in float64 are the most that rounding holds
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed.any():
                return upper.float()
        damping *= _GROWTH


def _damped(moments: Tensor, damping: float) -> Tensor:
    """The moments in float64 with a share of their mean power added to the diagonal; never all zero."""
    wide = moments.to(torch.float64, copy=True)
    diagonal = wide.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    diagonal += damping * torch.where(mean > 0, mean, 1.0)
    return wide
