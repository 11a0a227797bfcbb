"""`taylor`: what removing a unit would change of the loss, to first order.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (the first-order criterion, for
groups of weights), and 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference",
equation 8, which takes the magnitude of a sum as done here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration import Statistics
from demiglace.graph import Group


def taylor(group: Group, statistics: Statistics) -> Tensor | None:
    """The mean over batches of `|sum of weight * gradient|` for each unit, shape `[units]`.

    The sum runs over the weights that read the unit: without them it is gone, whatever makes it. A group
    that no weight reads is judged by all that it holds.
    """
    held = [one for one in group.slices if (one.tensor, one.dim) in statistics.changes]
    slices = [one for one in held if one.role == "consumed"] or held
    if not slices:
        return None
    sums = [statistics.changes[one.tensor, one.dim][:, one.index].sum(2) for one in slices]
    return torch.stack(sums).sum(0).abs().mean(0)
