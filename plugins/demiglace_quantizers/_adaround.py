"""`adaround`: learn for each weight whether to round it up or down (Nagel et al. 2020, "Up or Down?").

What is minimised is the mean squared change of the layer's output (equation 21), which the second moments
of its inputs give: `sum over outputs of e M e^T` for the error `e` of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from demiglace.quantization import (
    QTensor,
    Rounding,
    fit_weight,
    grouped,
    inputs_of,
    rounding_method,
    to_integers,
    to_real,
)
from demiglace_quantizers._output_error import output_error, times

_STEPS = 1000
_LOW, _HIGH = -0.1, 1.1  # what the sigmoid is stretched to (equation 23)
_PENALTY = 4.0  # weight of what drives every choice to 0 or 1, against the error of rounding to the nearest
_WARM = 0.2  # share of the steps without it
_SHARP = (20.0, 2.0)  # its exponent, at first and at last
_RATE = 0.05


@rounding_method("adaround", inputs=True)
def adaround(task: Rounding) -> QTensor:
    """Start from the weights as they are, and let each settle for the integer below or above it.

    A row for which rounding to the nearest gives less output error keeps that.
    """
    scheme, moments = task.scheme, inputs_of(task)
    groups = grouped(task.weight, scheme).float()
    scale, zero, dtype = fit_weight(task.weight, scheme, clip=task.clip)
    nearest = to_integers(groups, scale, zero, scheme)
    plain = output_error(groups - to_real(nearest, scale, zero), moments)
    choice = _Choice(groups, scale, zero, task)
    choice.learn(moments, float(plain.sum()), task.check_interrupt)
    learned = choice.integers()
    better = output_error(groups - to_real(learned, scale, zero), moments) < plain
    integers = torch.where(better.view(-1, 1, 1), learned, nearest)
    return QTensor.of(integers, scale, zero, scheme, tuple(task.weight.shape), scales=dtype)


class _Choice:
    """For each weight how much of the integer above it is taken, from 0 to 1."""

    def __init__(self, groups: Tensor, scale: Tensor, zero: Tensor, task: Rounding) -> None:
        self.groups, self.scale, self.zero, self.scheme = groups, scale, zero, task.scheme
        self.below = (groups / scale).floor()
        share = (groups / scale - self.below - _LOW) / (_HIGH - _LOW)
        self.logit = share.logit().requires_grad_()

    def up(self) -> Tensor:
        """The rectified sigmoid (equation 23)."""
        return (self.logit.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def integers(self) -> Tensor:
        """Where each weight settles."""
        with torch.no_grad():
            return self._clipped((self.up() >= 0.5).float())

    @torch.enable_grad()
    def learn(self, moments: Tensor, usual: float, check_interrupt: Callable[[], None]) -> None:
        """Minimise the output error, and then a penalty for being undecided with it (equations 21 and 24).

        Args:
            moments: of the inputs.
            usual: the output error of rounding to the nearest.
            check_interrupt: see `Rounding`.
        """
        if usual == 0:
            return
        optimizer = torch.optim.Adam([self.logit], lr=_RATE)
        for step in range(_STEPS):
            check_interrupt()
            up = self.up()
            error = self.groups - (self._clipped(up) - self.zero) * self.scale
            # The gradient of e M e^T is 2 e M: one product instead of three.
            pull = 2 * times(error.detach(), moments)
            loss = (error * pull).sum() * (self.logit.numel() / usual)
            done = (step / _STEPS - _WARM) / (1 - _WARM)
            if done > 0:
                sharp = _SHARP[1] + (_SHARP[0] - _SHARP[1]) * (1 + math.cos(math.pi * done)) / 2
                loss = loss + _PENALTY * (1 - (2 * up - 1).abs().pow(sharp)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _clipped(self, up: Tensor) -> Tensor:
        return (self.below + up + self.zero).clamp(self.scheme.low, self.scheme.high)
