"""`gptq`: later weights of a row make up for the error of earlier ones.

Frantar et al. 2023 ("GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers").
"""

from __future__ import annotations

from typing import NamedTuple

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
from demiglace_quantizers._both_sides import compensated_rows
from demiglace_quantizers._columns import Columns, compensated
from demiglace_quantizers._output_error import output_error

_ROWS = 4096  # of a weight at a time: only of these there are several copies


@rounding_method("gptq", inputs=True, outputs=True)
def gptq(task: Rounding) -> QTensor:
    """Round column by column; what a column loses is made up for by those that are still to come.

    With `clip`, a row has clipped ranges where its outputs err less with these than with whole ones. Where it
    is known what the model's outputs make of the layer's, later rows make up for earlier ones too.
    """
    weight, scheme, moments = task.weight, task.scheme, inputs_of(task)
    columns = Columns.of(moments, task.damping)
    fits = [fit_weight(weight, scheme, clip=clip) for clip in ((False, True) if task.clip else (False,))]
    one = _each_row(weight, scheme, moments, columns, [(scale, zero) for scale, zero, _ in fits])
    if task.outputs is not None:
        one = _all_rows(weight, scheme, columns, task.outputs, one)
    return QTensor.of(one.integers, one.scale, one.zero, scheme, tuple(weight.shape), scales=fits[0][2])


class _Solved(NamedTuple):
    """Integers `[rows, groups, size]`, int8, with scales and zero points `[rows, groups, 1]`."""

    integers: Tensor
    scale: Tensor
    zero: Tensor


def _each_row(
    weight: Tensor, scheme: Scheme, moments: Tensor, columns: Columns, fits: list[tuple[Tensor, Tensor]]
) -> _Solved:
    """Rows independent of each other, each with the better of the ranges that fit it."""
    # Where groups have moments of their own, all go together.
    rows = _ROWS if len(moments) == 1 else len(weight)
    found = []
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        groups = grouped(weight[part], scheme).float()
        tried = [_solved(groups, scale[part], zero[part], scheme, columns) for scale, zero in fits]
        found.append(tried[0] if len(tried) == 1 else _better(groups, moments, *tried))
    return _Solved(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _all_rows(weight: Tensor, scheme: Scheme, columns: Columns, outputs: Tensor, ranges: _Solved) -> _Solved:
    """Rows one block after the other, in ranges that are known."""
    groups = grouped(weight, scheme).float()

    def solve(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero = ranges.scale[places], ranges.zero[places]
        one = _solved(rows.view(len(rows), *groups.shape[1:]), scale, zero, scheme, columns)
        return one.integers.flatten(1), to_real(*one).flatten(1)

    integers = compensated_rows(groups.flatten(1), outputs, solve)
    return ranges._replace(integers=integers.view(groups.shape))


def _solved(groups: Tensor, scale: Tensor, zero: Tensor, scheme: Scheme, columns: Columns) -> _Solved:
    size, kinds = groups.shape[-1], len(columns.factor)
    # Each column lies in one group of weights, which has one scale in each row.
    ranges = [
        (s.view(kinds, -1), z.view(kinds, -1)) for s, z in zip(scale.unbind(1), zero.unbind(1), strict=True)
    ]

    def decide(now: Tensor, column: int, _: Tensor) -> tuple[Tensor, Tensor]:
        chosen = to_integers(now, *ranges[column // size], scheme)
        return chosen, to_real(chosen, *ranges[column // size])

    integers = compensated(groups.flatten(1), columns, decide)
    return _Solved(integers.to(torch.int8).unflatten(1, (-1, size)), scale, zero)


def _better(groups: Tensor, moments: Tensor, one: _Solved, other: _Solved) -> _Solved:
    """For each row the one whose outputs err less."""
    errors = [output_error(groups - to_real(*each), moments) for each in (one, other)]
    keep = (errors[0] <= errors[1]).view(-1, 1, 1)
    return _Solved(*(torch.where(keep, *both) for both in zip(one, other, strict=True)))
