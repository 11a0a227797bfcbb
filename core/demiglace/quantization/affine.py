"""Scales and zero points, rounding and back: the arithmetic of affine quantization.

All functions work on weights as `[rows, groups, size]` and on scales as `[rows, groups, 1]` (or anything
that broadcasts). No input makes a division by zero: a group without a range gets scale 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.quantization.scheme import Scheme

_SMALLEST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-126, torch.float32: 2.0**-126}


def fit(
    low: Tensor, high: Tensor, scheme: Scheme, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Scale and zero point that cover ranges from `low` to `high`, of any common shape.

    Zero is taken into the range. The scale is exact in `dtype`, float32 otherwise; the zero point is an
    integer of the scheme, 0 if that is symmetric.
    """
    low, high = low.float().clamp_max(0), high.float().clamp_min(0)
    if scheme.symmetric:
        scale = storable(torch.maximum(-low, high) / scheme.high, dtype)
        return scale, torch.zeros_like(scale)
    scale = storable((high - low) / (scheme.high - scheme.low), dtype)
    zero = (scheme.low - low / scale).round_().clamp_(scheme.low, scheme.high)
    return scale, zero


def storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales rounded up to `dtype`, as float32; never 0: a group of zeros has scale 1.

    Rounded down, 255 steps would miss the end of their range by up to an eighth of a step.
    """
    rounded = scale.to(dtype).float().clamp_min(_SMALLEST[dtype])
    next_up = (rounded * (1 + torch.finfo(dtype).eps)).to(dtype).float()
    rounded = torch.where(rounded < scale, next_up, rounded)
    return torch.where(scale == 0, torch.ones_like(rounded), rounded)


def scale_dtype(absmax: Tensor, scheme: Scheme) -> torch.dtype:
    """Where to keep scales: 16 bits where these tell every row's range well, else 32.

    Args:
        absmax: the largest magnitude of each row.
        scheme: the integers to round to.
    """
    if scheme.per_tensor:
        return torch.float32
    scales = absmax[absmax > 0] / scheme.high
    fine = bool(((scales > 2.0**-13) & (scales < 2.0**12)).all())
    return torch.float16 if fine else torch.float32


def to_integers(values: Tensor, scale: Tensor, zero: Tensor, scheme: Scheme) -> Tensor:
    """The nearest integers, saturated, as floating-point numbers."""
    return (values / scale + zero).round_().clamp_(scheme.low, scheme.high)


def to_real(integers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The real numbers that integers stand for."""
    return (integers - zero) * scale
