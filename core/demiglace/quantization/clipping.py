"""Ranges narrower than the values' own, where rounding the rest better pays for clipping a few."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.quantization.affine import fit, to_integers, to_real
from demiglace.quantization.scheme import Scheme

_SHARES = tuple(1 - 0.02 * step for step in range(41))  # of the full range, down to 0.2


def full_range(groups: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """The smallest and largest value of each group `[rows, groups, 1]`, or of all for one scale."""
    low, high = groups.aminmax(dim=-1, keepdim=True)
    return (low.amin()[None, None, None], high.amax()[None, None, None]) if scheme.per_tensor else (low, high)


def least_squares_range(
    groups: Tensor, scheme: Scheme, dtype: torch.dtype, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The range of each group that makes the squared rounding error least, among shares of the full one.

    Args:
        groups: values `[rows, groups, size]`.
        scheme: the integers to round to.
        dtype: of the scales.
        importance: weights of the squared errors, broadcast to `groups`.
    """
    low, high = full_range(groups, scheme)
    best_share, best = torch.ones_like(low), None
    for share in _SHARES:
        scale, zero = fit(low * share, high * share, scheme, dtype)
        error = (to_real(to_integers(groups, scale, zero, scheme), scale, zero) - groups).square_()
        error = error if importance is None else error * importance
        total = error.sum().expand_as(low) if scheme.per_tensor else error.sum(-1, keepdim=True)
        if best is None:
            best = total
            continue
        better = total < best
        best = torch.where(better, total, best)
        best_share = torch.where(better, share, best_share)
    return low * best_share, high * best_share
