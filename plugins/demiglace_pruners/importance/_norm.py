"""The norm of what makes a unit."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration import Statistics
from demiglace.graph import Group


def norm(group: Group, statistics: Statistics, order: float) -> Tensor:
    """The Ln norm of each unit over the rows that produce it, shape `[units]`.

    A group that nothing produces (a table or token) is judged by all that it holds.
    """
    slices = [one for one in group.slices if one.role == "produced"] or list(group.slices)
    rows = torch.cat([statistics.rows(one) for one in slices], dim=1)
    return torch.linalg.vector_norm(rows, ord=order, dim=1)
