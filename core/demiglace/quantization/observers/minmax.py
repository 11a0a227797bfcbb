"""The whole range."""

from __future__ import annotations

from demiglace.quantization.observers.observer import Observer
from demiglace.quantization.scheme import Scheme


class MinMax(Observer):
    """From the smallest to the largest value seen: clips nothing."""

    def range(self, scheme: Scheme) -> tuple[float, float]:
        return self.low, self.high
