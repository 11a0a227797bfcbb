"""`wanda`: weights times the norm of what they are multiplied with.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", equation 1, summed over
the weights that produce a unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from demiglace.calibration import Statistics, layer_of_weight

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group


def wanda(group: Group, statistics: Statistics) -> Tensor | None:
    """The sum of `|weight| * root mean square of its input` for each unit, shape `[units]`.

    `None` for a group that no linear layer or convolution produces.
    """
    sums = []
    for one in group.slices:
        layer = layer_of_weight(one.tensor)
        if one.role != "produced" or layer not in statistics.inputs:
            continue
        transposed = "_ConvTransposeNd" in statistics.types[layer]
        norms = statistics.inputs[layer].power.sqrt()
        weighted = _weighted(statistics.tensors[one.tensor].cpu(), norms, transposed)
        sums.append(weighted.movedim(one.dim, 0)[one.index].flatten(1).sum(1))
    return torch.stack(sums).sum(0) if sums else None


def _weighted(weight: Tensor, norms: Tensor, transposed: bool) -> Tensor:
    """The magnitude of each weight times the norm of the input channel that it multiplies."""
    if transposed:
        factors = norms[:, None]
    else:
        groups = len(norms) // weight.shape[1]
        factors = norms.view(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return weight.abs() * factors.view(*factors.shape, *(1 for _ in weight.shape[2:]))
