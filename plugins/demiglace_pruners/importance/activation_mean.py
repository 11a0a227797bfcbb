"""`activation_mean`: the mean activation of a unit (Molchanov et al. 2017, section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.calibration import Statistics
from demiglace_pruners.importance._activation import by_unit

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group


def activation_mean(group: Group, statistics: Statistics) -> Tensor | None:
    """The magnitude of each unit's mean where layers read it, shape `[units]`; `None` where none does."""
    return by_unit(group, statistics, lambda inputs: inputs.mean.abs())
