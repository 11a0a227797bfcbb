"""Rounding a weight to the nearest integers."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.quantization.affine import fit, scale_dtype, to_integers
from demiglace.quantization.clipping import full_range, least_squares_range
from demiglace.quantization.qtensor import QTensor, grouped
from demiglace.quantization.scheme import Scheme

_ROWS = 4096  # that are searched for their range at a time


def fit_weight(
    weight: Tensor, scheme: Scheme, *, axis: int = 0, clip: bool = False, importance: Tensor | None = None
) -> tuple[Tensor, Tensor, torch.dtype]:
    """Scales and zero points `[rows, groups, 1]` for a weight, and the dtype that keeps the scales.

    Args:
        weight: floating point, finite.
        scheme: its groups divide the weight's rows.
        axis: the dimension of rows.
        clip: search each group's range for the least squared error.
        importance: of each column for that search, `[columns]`.
    """
    weight = weight.detach()
    groups = grouped(weight, scheme, axis)
    least, most = groups.flatten(1).aminmax(dim=1)
    dtype = scale_dtype(torch.maximum(-least, most), scheme)
    if not clip:
        return *fit(*full_range(groups, scheme), scheme, dtype), dtype
    along = None if importance is None else importance.view(1, groups.shape[1], -1).float()
    parts = [groups] if scheme.per_tensor else groups.split(_ROWS)
    ranges = [least_squares_range(part.float(), scheme, dtype, along) for part in parts]
    low, high = (torch.cat(ends) for ends in zip(*ranges, strict=True))
    return *fit(low, high, scheme, dtype), dtype


def round_weight(
    weight: Tensor, scheme: Scheme, *, axis: int = 0, clip: bool = False, importance: Tensor | None = None
) -> QTensor:
    """A weight rounded to the nearest integers; see `fit_weight`."""
    scale, zero, dtype = fit_weight(weight, scheme, axis=axis, clip=clip, importance=importance)
    groups = grouped(weight.detach(), scheme, axis).float()
    integers = to_integers(groups, scale, zero, scheme)
    return QTensor.of(integers, scale, zero, scheme, tuple(weight.shape), axis=axis, scales=dtype)
