"""Errors of one output made up for by others that the model's outputs see together with it.

Errors `E` of a weight, `[outputs, k]`, change the model's outputs by about `trace(G E M E^T)`, for the second
moments `M` of the layer's inputs and `G` of the gradients at its outputs (Martens & Grosse 2015, "Optimizing
Neural Networks with Kronecker-factored Approximate Curvature"). As later columns of a row make up for earlier
ones through `M`, later rows do through `G` (Tseng et al. 2025, "Model-Preserving Adaptive Rounding").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from demiglace_quantizers._columns import Columns

Solve: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From rows `[n, k]` as errors of earlier ones have changed them, and their places `[n]`: integers, and the
real numbers that these stand for, both `[n, k]`."""

DAMPING = 1.0
"""Of the gradients' moments, as a share of their mean. Examples tell them less well than inputs' moments, and
one matrix for all inputs is an approximation: sentences' embeddings gain most with 1, nothing with 0.03."""

_BLOCKS = 12  # of rows: those of one do not make up for each other
_ROWS = 16  # in a block at least


def compensated_rows(matrix: Tensor, outputs: Tensor, solve: Solve) -> Tensor:
    """Integers `[outputs, k]`, block of rows by block of rows, each making up for those before.

    Args:
        matrix: float32 `[outputs, k]`.
        outputs: the moments of the gradients at the outputs, `[outputs, outputs]`.
        solve: chooses the integers of a block.
    """
    rows = Columns.of(outputs[None], DAMPING)
    order, factor = rows.order, rows.factor[0]
    left, size = matrix[order], max(_ROWS, -(-len(matrix) // _BLOCKS))
    integers = torch.empty_like(matrix, dtype=torch.int8)
    for start in range(0, len(matrix), size):
        block = slice(start, start + size)
        places, own = order[block], factor[block, block]
        chosen, real = solve(left[block], places)
        integers[places] = chosen.to(torch.int8)
        # What each row is off by once those before it in the block are made up for.
        errors = torch.linalg.solve_triangular(own.T, left[block] - real, upper=False)
        left[start + size :] -= factor[block, start + size :].T @ errors
    return integers
