"""`activation_variance`: how much a unit varies; what is constant, a bias can replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.calibration import Statistics
from demiglace_pruners.importance._activation import by_unit

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group


def activation_variance(group: Group, statistics: Statistics) -> Tensor | None:
    """The variance of each unit where layers read it, shape `[units]`; `None` where none does."""
    return by_unit(group, statistics, lambda inputs: inputs.variance)
