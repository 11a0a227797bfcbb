"""What an optimizer remembers of a parameter follows when the parameter is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


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


def forget_graph(parameter: nn.Parameter) -> None:
    """Let a parameter that was cut take part in new graphs, though an older one is still alive.

    While anything holds an old loss or output, autograd keeps one node for the parameter, which expects
    gradients of the old shape. It drops that node when the dtype changes, so the dtype changes for a moment.
    """
    parameter.grad = None
    data = parameter.data
    parameter.data = data.new_empty(0, dtype=torch.float64 if data.dtype != torch.float64 else torch.float32)
    parameter.data = data
