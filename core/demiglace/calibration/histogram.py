"""How often values occur, over a range that grows with what is seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demiglace.calibration.collector import Side, TensorCollector

_COUNTED = 1 << 18  # values of one call that are counted at most, evenly spread


class Histogram(TensorCollector):
    """A histogram of the values of a layer's input or output, symmetric about 0, with their exact range.

    Of a call with more than 262,144 values as many are counted, evenly spread, and weigh for all of them.

    Bins are equally wide. When a value lies outside, the width doubles until it fits and neighbouring
    bins are merged, so that no earlier value is counted in a wrong bin.

    Args:
        of: the input or the output.
        bins: how many bins each side of 0 has, even.
    """

    def __init__(self, of: Side = "input", bins: int = 2048) -> None:
        super().__init__(of)
        self.bins = bins
        #: Width of a bin; 0 as long as only zeros were seen.
        self.width = 0.0
        self.low, self.high = math.inf, -math.inf
        self.counts = torch.zeros(2 * bins, dtype=torch.float64)

    def take(self, values: Tensor) -> None:
        low, high = (float(end) for end in values.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        if self.width == 0:
            self.counts[self.bins] += values.numel()
            return
        flat = values.flatten()
        counted = flat[:: _step(flat.numel(), values.shape[1])]
        place = (counted.float() / self.width).floor_().clamp_(-self.bins, self.bins - 1)
        counts = torch.bincount(place.long() + self.bins, minlength=2 * self.bins).cpu()
        self.counts += counts * (flat.numel() / counted.numel())

    @property
    def centres(self) -> Tensor:
        """The middle of each bin, shape `[2 * bins]`, ascending."""
        return (torch.arange(-self.bins, self.bins, dtype=torch.float64) + 0.5) * self.width

    def _widen(self, reach: float) -> None:
        """Make the range hold magnitudes up to `reach`."""
        if self.width == 0:
            self.width = reach / self.bins
            return
        while reach > self.width * self.bins:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.nn.functional.pad(merged, (self.bins // 2, self.bins // 2))
            self.width *= 2


def _step(count: int, channels: int) -> int:
    """From one counted value to the next: no common factor with the channels, so that all have a turn."""
    step = max(1, math.ceil(count / _COUNTED))
    while step > 1 and math.gcd(step, channels) > 1:
        step += 1
    return step
