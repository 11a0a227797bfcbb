"""Mean and second moment of each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration.collector import Side, TensorCollector


class Moments(TensorCollector):
    """Mean, mean square and variance of each channel of a layer's input or output, in float64."""

    def __init__(self, of: Side = "input", axis: int | None = None) -> None:
        super().__init__(of, axis)
        self._sum = self._squares = torch.zeros((), dtype=torch.float64)
        #: How many values each channel had.
        self.rows = 0

    def take(self, values: Tensor) -> None:
        self._sum = self._sum.to(values.device) + values.sum(0, dtype=torch.float64)
        squares = values.float().square().sum(0, dtype=torch.float64)
        self._squares = self._squares.to(values.device) + squares
        self.rows += values.shape[0]

    @property
    def mean(self) -> Tensor:
        """The mean of each channel, shape `[channels]`."""
        return self._sum / self.rows

    @property
    def mean_square(self) -> Tensor:
        """The mean of the squares of each channel, shape `[channels]`."""
        return self._squares / self.rows

    @property
    def variance(self) -> Tensor:
        """The population variance of each channel, shape `[channels]`, at least 0."""
        return (self.mean_square - self.mean.square()).clamp_min(0)
