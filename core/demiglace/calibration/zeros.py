"""The share of zeros in what a layer gives."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration.collector import Side, TensorCollector


class ZeroShare(TensorCollector):
    """Average percentage of zeros of each channel (APoZ; Hu et al. 2016), as a share from 0 to 1.

    Args:
        of: the input or the output.
        axis: see `TensorCollector`.
        rectified: count what is not positive, for a layer whose output goes into a ReLU.
    """

    def __init__(self, of: Side = "output", axis: int | None = None, *, rectified: bool = False) -> None:
        super().__init__(of, axis)
        self.rectified = rectified
        self._zeros = torch.zeros((), dtype=torch.int64)
        self.rows = 0

    def take(self, values: Tensor) -> None:
        zeros = values <= 0 if self.rectified else values == 0
        self._zeros = self._zeros.to(values.device) + zeros.sum(0)
        self.rows += values.shape[0]

    @property
    def share(self) -> Tensor:
        """The share of zeros of each channel, shape `[channels]`."""
        return self._zeros.double() / self.rows
