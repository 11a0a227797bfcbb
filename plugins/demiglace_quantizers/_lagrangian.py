"""Integers chosen for their error and the bits that they take once they are entropy-coded.

Entropy-constrained scalar quantization (Chou, Lookabaugh & Gray 1989), as video coders and DeepCABAC
(Wiedemann et al. 2019, arXiv 1905.08318) use it: of the nearest integer and the one next to it towards
zero, the one with the smaller `error^2 + bits * rate`, errors in steps. What an integer takes is what an
order-0 model of its own tensor says, which is the model of the packed file.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIGH = 127
"""Integers are from -127 to 127."""

RATE = 0.1155
"""Squared steps that a bit is worth: where a step of size s costs s^2 / 12 and -log2(s) bits, both together
are least at ln(2) / 6."""

_ROWS = 4096  # that are rounded at a time
_ROUNDS = 2  # of choosing integers by what the last choice makes of their frequencies


def table_of(counts: Tensor) -> Tensor:
    """Bits of each integer from -127 to 127 that came so often, float32 `[255]`."""
    smooth = counts.double() + 0.5
    return (smooth.sum() / smooth).log2().float()


def cheapest(values: Tensor, table: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Integers, as floating-point numbers, for values in steps.

    Args:
        values: of any shape.
        table: as `table_of` gives it.
        weight: what a squared error costs, broadcast to the values; 1 on average.
    """
    near = values.round().clamp_(-HIGH, HIGH)
    nearer = near - near.sign()
    extra = ((values - nearer).square() - (values - near).square()) * weight
    saved = table[(near + HIGH).long()] - table[(nearer + HIGH).long()]
    return torch.where(extra < RATE * saved, nearer, near)


def settled(values: Tensor) -> tuple[Tensor, Tensor]:
    """Integers for values in steps, of any shape, and the table that chose them."""
    integers = values.round().clamp_(-HIGH, HIGH)
    for _ in range(_ROUNDS):
        table = table_of(counts_of(integers))
        integers = cheapest(values, table)
    return integers, table


def rounded(matrix: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """`settled` for a matrix `[rows, columns]` in steps `[rows, 1]`, some rows at a time."""
    parts = list(zip(matrix.split(_ROWS), steps.split(_ROWS), strict=True))
    integers = torch.cat([(rows / step).round_().clamp_(-HIGH, HIGH).to(torch.int8) for rows, step in parts])
    for _ in range(_ROUNDS):
        table = table_of(counts_of(integers))
        integers = torch.cat([cheapest(rows / step, table).to(torch.int8) for rows, step in parts])
    return integers, table


def counts_of(integers: Tensor) -> Tensor:
    """How often each integer from -127 to 127 comes, `[255]`."""
    return torch.bincount((integers.flatten().to(torch.int16) + HIGH).int(), minlength=2 * HIGH + 1)


def entropy(counts: Tensor) -> float:
    """Bits that integers with these counts take, by their order-0 entropy."""
    present = counts[counts > 0].double()
    return (
        float(present.sum() * present.sum().log2() - (present * present.log2()).sum())
        if len(present)
        else 0.0
    )
