"""`gptq`: later weights of a row make up for the error of earlier ones.

Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

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
from demiglace_quantizers._output_error import output_error

Decide: TypeAlias = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""From a column's weights `[groups, outputs]` as errors so far have changed them, its place in the matrix,
and what a squared error in it costs once later columns have made up for it `[groups, 1]`: integers and the
real numbers that these stand for."""

_BLOCK = 128  # columns whose errors are passed on together
_ROWS = 4096  # of a weight at a time: only of these there are several copies
_GROWTH = 10.0  # of the damping while the matrix is not positive definite


@rounding_method("gptq", inputs=True)
def gptq(task: Rounding) -> QTensor:
    """Round column by column; what a column loses is made up for by those that are still to come.

    With `clip`, a row has clipped ranges where its outputs err less with these than with whole ones.
    """
    weight, scheme, moments = task.weight, task.scheme, inputs_of(task)
    columns = Columns.of(moments, task.damping)
    # Rows are independent of each other; where groups have moments of their own, all go together.
    rows = _ROWS if len(moments) == 1 else len(weight)
    found = []
    fits = [fit_weight(weight, scheme, clip=clip) for clip in ((False, True) if task.clip else (False,))]
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        groups = grouped(weight[part], scheme).float()
        tried = [_solved(groups, scale[part], zero[part], scheme, columns) for scale, zero, _ in fits]
        found.append(tried[0] if len(tried) == 1 else _better(groups, moments, *tried))
    integers, scale, zero = (torch.cat(parts) for parts in zip(*found, strict=True))
    return QTensor.of(integers, scale, zero, scheme, tuple(weight.shape), scales=fits[0][2])


class _Solved(NamedTuple):
    """Integers `[rows, groups, size]`, int8, with scales and zero points `[rows, groups, 1]`."""

    integers: Tensor
    scale: Tensor
    zero: Tensor


def _solved(groups: Tensor, scale: Tensor, zero: Tensor, scheme: Scheme, columns: Columns) -> _Solved:
    size = groups.shape[-1]

    def decide(now: Tensor, column: int, _: Tensor) -> tuple[Tensor, Tensor]:
        # Each column lies in one group of weights, which has one scale in each row.
        s, z = (one[:, column // size].view(now.shape) for one in (scale, zero))
        chosen = to_integers(now, s, z, scheme)
        return chosen, to_real(chosen, s, z)

    integers = compensated(groups.flatten(1), columns, decide)
    return _Solved(integers.to(torch.int8).unflatten(1, (-1, size)), scale, zero)


def _better(groups: Tensor, moments: Tensor, one: _Solved, other: _Solved) -> _Solved:
    """For each row the one whose outputs err less."""
    errors = [output_error(groups - to_real(*each), moments) for each in (one, other)]
    keep = (errors[0] <= errors[1]).view(-1, 1, 1)
    return _Solved(*(torch.where(keep, *both) for both in zip(one, other, strict=True)))


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
    left, places = matrix.unflatten(0, (len(factor), -1))[:, :, order], order.tolist()
    integers = torch.empty_like(left)
    for start in range(0, left.shape[2], _BLOCK):
        stop = min(start + _BLOCK, left.shape[2])
        errors = torch.zeros_like(left[:, :, start:stop])
        for column in range(start, stop):
            now, root = left[:, :, column], factor[:, None, column, column]
            integers[:, :, column], real = decide(now, places[column], root.square().reciprocal())
            error = (now - real) / root
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
