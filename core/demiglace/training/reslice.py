"""What an optimizer remembers of a parameter follows when the parameter is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from demiglace.graph import Cut


def reslice(state: dict[str, Any], cut: Cut) -> None:
    """Cut an optimizer's state of one parameter as the parameter was cut.

    A moment of the parameter's shape is cut likewise; a factor with one entry along the cut dimension
    (Adafactor) and a step count stay.
    """
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or value.dim() <= cut.dim or value.shape[cut.dim] == 1:
            continue
        kept = torch.tensor(cut.kept, device=value.device)
        state[key] = value.index_select(cut.dim, kept).contiguous()
