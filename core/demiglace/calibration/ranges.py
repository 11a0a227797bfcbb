"""Smallest and largest values."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration.collector import Side, TensorCollector


class Ranges(TensorCollector):
    """The smallest and largest value of each channel of a layer's input or output."""

    def __init__(self, of: Side = "input", axis: int | None = None) -> None:
        super().__init__(of, axis)
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def take(self, values: Tensor) -> None:
        low, high = values.aminmax(dim=0)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)

    @property
    def low(self) -> Tensor:
        """The smallest value of each channel, shape `[channels]`."""
        return _seen(self._low)

    @property
    def high(self) -> Tensor:
        """The largest value of each channel, shape `[channels]`."""
        return _seen(self._high)

    @property
    def absmax(self) -> Tensor:
        """The largest magnitude of each channel, shape `[channels]`."""
        return torch.maximum(self.low.abs(), self.high.abs())


def _seen(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("nothing was gathered: the layer was never called")
    return value
