"""What an optimizer remembers of a parameter follows when the parameter is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def reslice(state: dict[str, Any], dim: int, kept: Sequence[int]) -> None:
    """Keep some indices along one dimension of an optimizer's state of one parameter.

    A moment of the parameter's shape is cut likewise; a factor with one entry along that dimension
    (Adafactor) and a step count stay.
    """
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or value.dim() <= dim or value.shape[dim] == 1:
            continue
        index = torch.tensor(kept, device=value.device)
        state[key] = value.index_select(dim, index).contiguous()
