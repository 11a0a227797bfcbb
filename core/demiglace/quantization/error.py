"""How far a quantized tensor is from what it stands for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_PERFECT = 200.0  # dB, for a tensor without any error


@dataclass(frozen=True)
class TensorError:
    """Figures of one tensor against its original."""

    #: Signal-to-quantization-noise ratio in dB, at most 200.
    sqnr: float
    #: Cosine of the angle between both, 1 for two zero tensors.
    cosine: float

    @classmethod
    def between(cls, original: Tensor, approximation: Tensor) -> TensorError:
        """The error of `approximation`, of the original's shape."""
        return cls.over([(original, approximation)])

    @classmethod
    def over(cls, parts: Iterable[tuple[Tensor, Tensor]]) -> TensorError:
        """The error of a tensor of which there are only parts at a time, each with its approximation."""
        signal = noise = power = product = 0.0
        for original, approximation in parts:
            # Squares of float32 would vanish below 1e-23 and be infinite above 1e19.
            first, second = (one.detach().flatten().double() for one in (original, approximation))
            signal += float(first.square().sum())
            noise += float((first - second).square().sum())
            power += float(second.square().sum())
            product += float(torch.dot(first, second))
        length, same = math.sqrt(signal) * math.sqrt(power), 1.0 if noise == 0 else 0.0
        return cls(_decibel(signal, noise), product / length if length else same)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return _PERFECT
    return -_PERFECT if signal == 0 else max(-_PERFECT, min(_PERFECT, 10 * math.log10(signal / noise)))
