"""Figures of a unit's activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from demiglace.calibration import Inputs, Statistics
from demiglace.graph import Group


def by_unit(group: Group, statistics: Statistics, figure: Callable[[Inputs], Tensor]) -> Tensor | None:
    """The mean over all readers of a figure of their inputs, for each unit, shape `[units]`.

    Activations are looked at where layers read them: behind the norm, the nonlinearity and the pooling.
    """
    figures = [figure(inputs)[one.index] for one, inputs in statistics.read(group)]
    return torch.cat(figures, dim=1).mean(1) if figures else None
