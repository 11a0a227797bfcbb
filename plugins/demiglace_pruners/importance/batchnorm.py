"""`batchnorm`: the scale of the batch norm behind a channel (Liu et al. 2017, "Network Slimming")."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration import Statistics
from demiglace.graph import Group, holder


def batchnorm(group: Group, statistics: Statistics) -> Tensor | None:
    """The mean absolute scale of each unit, shape `[units]`; `None` for a group without batch norm."""
    scales = [
        one
        for one in group.slices
        if one.tensor.endswith("weight") and "_BatchNorm" in statistics.types.get(holder(one.tensor), ())
    ]
    if not scales:
        return None
    return torch.cat([statistics.rows(one) for one in scales], dim=1).abs().mean(1)
