"""`l1`: the L1 norm of the weights that produce a unit.

Li et al. 2017, "Pruning Filters for Efficient ConvNets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.calibration import Statistics
from demiglace_pruners.importance._norm import norm

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group


def l1(group: Group, statistics: Statistics) -> Tensor:
    """The L1 norm of each unit, shape `[units]`."""
    return norm(group, statistics, 1)
