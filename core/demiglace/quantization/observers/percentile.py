"""The range without its rarest ends."""

from __future__ import annotations

from demiglace.quantization.observers.observer import Observer
from demiglace.quantization.scheme import Scheme

_CUT = 1e-5  # of all values, at each end


class Percentile(Observer):
    """Clips one value in 100,000 at each end, to a bin's width."""

    def range(self, scheme: Scheme) -> tuple[float, float]:
        share = self.counts.cumsum(0) / self.counts.sum()
        low = self.centres[int((share <= _CUT).sum())] - self.width / 2
        high = self.centres[int((share < 1 - _CUT).sum())] + self.width / 2
        return max(self.low, float(low)), min(self.high, float(high))
