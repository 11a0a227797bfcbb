"""`wanda`: weights times the norm of what they are multiplied with.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", equation 1, summed over
the weights that read a unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.graph import Group
from demiglace_pruners.importance.statistics import Statistics


def wanda(group: Group, statistics: Statistics) -> Tensor | None:
    """The sum of `|weight| * root mean square of its input` for each unit, shape `[units]`.

    `None` for a group that no linear layer or convolution reads.
    """
    sums = []
    for one, inputs in statistics.read(group):
        weights = statistics.rows(one).abs().unflatten(1, (one.index.shape[1], -1)).sum(2)
        sums.append((weights * inputs.power.sqrt()[one.index]).sum(1))
    return torch.stack(sums).sum(0) if sums else None
