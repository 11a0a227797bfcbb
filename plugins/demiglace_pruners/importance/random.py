"""`random`: the baseline of every criterion."""

from __future__ import annotations

import torch
from torch import Tensor

from demiglace.calibration import Statistics
from demiglace.graph import Group


def random(group: Group, statistics: Statistics) -> Tensor:
    """A number in [0, 1) for each unit, from the step's seed."""
    return torch.rand(group.units, generator=statistics.generator)
