"""`apoz`: the average percentage of zeros (Hu et al. 2016, "Network Trimming"): what is often off, goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.calibration import Statistics
from demiglace_pruners.importance._activation import by_unit

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group


def apoz(group: Group, statistics: Statistics) -> Tensor | None:
    """The share of values that are not zero where layers read a unit, 0 to 1, shape `[units]`.

    `None` where no layer reads the group, or none of its values is ever zero: there is no ReLU before.
    """
    alive = by_unit(group, statistics, lambda inputs: 1 - inputs.zeros)
    return None if alive is None or bool((alive == 1).all()) else alive
