"""Integers chosen for their error and for the bits that they take once they are entropy-coded.

Entropy-constrained scalar quantization (Chou, Lookabaugh & Gray 1989), as DeepCABAC uses it for weights
(Wiedemann et al. 2019, arXiv 1905.08318): of the nearest integer and the one next to it towards zero, the one
with the smaller `error^2 + RATE * bits`. What an integer takes is what an order-0 model of its own tensor
says, which is the model of the packed file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGH = 127
"""Integers are from -127 to 127."""

RATE = math.log(2) / 6
"""What a bit is worth in squared steps: with steps of a size `s`, errors of `s^2 / 12` and `-log2(s)` bits
together cost least where that is the price of a bit."""

_ELEMENTS = 1 << 20  # that are rounded at a time
_ROUNDS = 2  # of choosing integers by how frequent the last choice made them


def table_of(integers: Tensor) -> Tensor:
    """Bits of each integer from -127 to 127 by how often it comes, float32 `[255]`."""
    smooth = counts_of(integers).double() + 0.5
    return (smooth.sum() / smooth).log2().float()


def cheapest(values: Tensor, costs: Tensor, table: Tensor | None) -> Tensor:
    """Integers for values in steps, as floating-point numbers.

    Args:
        values: of any shape.
        costs: of their squared errors, 1 on average; broadcast to the values.
        table: as `table_of` gives it; the nearest integers without.
    """
    near = values.round().clamp_(-HIGH, HIGH)
    if table is None:
        return near
    nearer = near - near.sign()
    added = ((values - nearer).square_() - (values - near).square_()).mul_(costs)
    saved = table[(near + HIGH).int()] - table[(nearer + HIGH).int()]
    return torch.where(added < RATE * saved, nearer, near)


def rounded(weights: Tensor, steps: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """Integers for weights that do not make up for each other's errors, int8, and their table.

    Args:
        weights: `[n]` or `[rows, columns]`.
        steps: `[n]` or `[rows, 1]`.
        costs: of squared errors, of the weights' shape.
    """
    length = max(1, _ELEMENTS // weights[0].numel())
    parts = list(zip(*(one.split(length) for one in (weights, steps, costs)), strict=True))

    def chosen(table: Tensor | None) -> Tensor:
        return torch.cat([cheapest(one / step, cost, table).to(torch.int8) for one, step, cost in parts])

    integers = chosen(None)
    for _ in range(_ROUNDS):
        integers = chosen(table_of(integers))
    return integers, table_of(integers)


def counts_of(integers: Tensor) -> Tensor:
    """How often each integer from -127 to 127 comes, `[255]`."""
    return torch.bincount(integers.flatten().int() + HIGH, minlength=2 * HIGH + 1)


def entropy(counts: Tensor) -> float:
    """Bits that symbols with these counts take by their order-0 entropy; at least one comes."""
    present = counts[counts > 0].double()
    return float(present.sum() * present.sum().log2() - (present * present.log2()).sum())
