"""The one tensor that losses and metrics look at, whatever form a model's output has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from demiglace.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def prediction(outputs: Any) -> Tensor:
    """The tensor of predictions in a model's outputs.

    A tensor is itself; of a mapping or an object with `logits` these; of a sequence the first.

    Raises:
        UsageError: when there is none.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        if "logits" in outputs:
            return prediction(outputs["logits"])
    elif hasattr(outputs, "logits"):
        return prediction(outputs.logits)
    if isinstance(outputs, list | tuple) and outputs:
        return prediction(outputs[0])
    raise UsageError(
        f"the model's output is a {type(outputs).__name__} without `logits`",
        hint="let forward return a tensor, a tuple that starts with one, or a dict with `logits`",
    )
