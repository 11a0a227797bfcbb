"""Rounding that gradients go through, for training with the integers that will come."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demiglace.quantization.affine import fit
from demiglace.quantization.scheme import Scheme

_LEAST = 1e-24  # that a step size's square is taken for, so that nothing is divided by zero


def rounded(values: Tensor, low: int, high: int) -> Tensor:
    """The nearest integers from `low` to `high`; the gradient passes where nothing saturates.

    The straight-through estimator (Bengio, Leonard and Courville 2013).
    """
    kept = values.clamp(low, high)
    return kept + (kept.round() - kept).detach()


def learned_step(start: Tensor, log_step: Tensor, weights: int, high: int) -> Tensor:
    """Steps `start * exp(log_step)`: always positive, and untouched by the size that the weights have.

    The gradient's factor makes one step of plain gradient descent move the step size as in LSQ (Esser et
    al. 2020, section 2.2: `1 / sqrt(weights * high)`, for the step size itself).

    Args:
        start: the first step sizes, positive.
        log_step: what is learned, of the same shape, 0 at first.
        weights: how many weights share a step size.
        high: the largest integer.
    """
    pulled = log_step / (math.sqrt(weights * high) * start.square().clamp_min(_LEAST))
    # The difference is 0: it changes the gradient alone.
    return start * (log_step.detach() + (pulled - pulled.detach())).exp()


def fake_symmetric(values: Tensor, step: Tensor, scheme: Scheme) -> Tensor:
    """Values as their integers stand for them; the step's gradient is that of LSQ (equation 3).

    A step size of 0 gives zeros: the proof of a cut compares with a model whose removed rows are all 0.
    """
    return rounded(values / torch.where(step == 0, 1.0, step), scheme.low, scheme.high) * step


def fake_affine(values: Tensor, low: Tensor, high: Tensor, scheme: Scheme) -> Tensor:
    """Values as integers of a fixed range stand for them, in the values' dtype."""
    scale, zero = fit(low, high, scheme)
    wide = values.float()
    return ((rounded(wide / scale + zero, scheme.low, scheme.high) - zero) * scale).to(values.dtype)


def moving(old: Tensor, new: Tensor, share: float) -> Tensor:
    """An exponential moving average that starts with the first value; 0 stands for none yet."""
    return torch.where(old == 0, new, old.lerp(new, share))
