"""`hqq`: half-quadratic quantization (Badri & Shaji 2023), which lets few weights be far off.

Minimises `sum |W - (Q - z) s|^p` with p = 0.7 by splitting off the error: `E <- shrink(W - (Q - z) s)`, then
what is left of the weights is fitted again. The authors fit a real-valued zero point; zero points are
integers here, so it is the scale that is fitted, in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.quantization import (
    QTensor,
    Rounding,
    fit_weight,
    grouped,
    rounding_method,
    to_integers,
    to_real,
)

_NORM = 0.7
_START, _GROWTH, _ROUNDS = 10.0, 1.01, 20  # of the weight of the quadratic term, as published


@rounding_method("hqq")
def hqq(task: Rounding) -> QTensor:
    """Fit scales to the bulk of the weights; a group keeps its first scale unless a later one errs less."""
    groups = grouped(task.weight, task.scheme).float()
    scale, zero, dtype = fit_weight(task.weight, task.scheme, clip=task.clip)
    best, least = scale, _error(groups, scale, zero, task)
    unit = groups.abs().mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    weight = _START
    for _ in range(_ROUNDS):
        task.check_interrupt()
        integers = to_integers(groups, scale, zero, task.scheme)
        # The authors' constants are for weights of a usual size: errors are measured by the group's own.
        split = _shrink((groups - to_real(integers, scale, zero)) / unit, weight) * unit
        scale = _fitted(groups - split, integers - zero, scale, dtype)
        error = _error(groups, scale, zero, task)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
        weight *= _GROWTH
    integers = to_integers(groups, best, zero, task.scheme)
    return QTensor.of(integers, best, zero, task.scheme, tuple(task.weight.shape), scales=dtype)


def _shrink(error: Tensor, weight: float) -> Tensor:
    """Equation 4 of the authors: the generalised soft threshold of an error."""
    size = error.abs()
    pull = torch.where(size > 0, size.clamp_min(1e-8).pow(_NORM - 1), 0) / weight
    return error.sign() * (size - pull).clamp_min(0)


def _fitted(groups: Tensor, steps: Tensor, old: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale of least squares for given integers, positive; the old one where all integers are 0."""
    power = steps.square().sum(-1, keepdim=True)
    fitted = (groups * steps).sum(-1, keepdim=True) / power.clamp_min(1)
    fitted = fitted.to(dtype).float()
    return torch.where((power > 0) & (fitted > 0), fitted, old)


def _error(groups: Tensor, scale: Tensor, zero: Tensor, task: Rounding) -> Tensor:
    real = to_real(to_integers(groups, scale, zero, task.scheme), scale, zero)
    return (groups - real).abs().pow(_NORM).sum(-1, keepdim=True)
