"""First-order importance of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from demiglace.calibration.collector import GradientCollector, channel_axis


class Taylor(GradientCollector):
    """What removing a channel would change of the loss, to first order.

    The mean over examples of `|sum over positions of activation * gradient|` for each channel of a
    layer's output (Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", equation 8). The gradient is that of the mean loss of a batch times its examples.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self._sum = torch.zeros((), dtype=torch.float64)
        self.examples = 0

    def see_gradient(self, module: nn.Module, output: Tensor, gradient: Tensor) -> None:
        axis = channel_axis(module) if self.axis is None else self.axis
        change = (
            (output * gradient).movedim(axis, 1).flatten(2).sum(2) if output.dim() > 2 else output * gradient
        )
        self._sum = self._sum.to(change.device) + change.abs().double().sum(0) * len(output)
        self.examples += len(output)

    @property
    def importance(self) -> Tensor:
        """One figure for each channel, at least 0, shape `[channels]`."""
        return self._sum / self.examples
