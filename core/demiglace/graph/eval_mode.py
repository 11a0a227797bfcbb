"""Looking at a model as it behaves at inference, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own mode afterwards."""
    before = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in before:
            each.training = training


@contextmanager
def own_tensors(module: nn.Module) -> Iterator[None]:
    """Put back every parameter and buffer afterwards.

    `torch.func.functional_call` leaves its own in a layer that the model holds under two names.
    """
    before = [(each, dict(each._parameters), dict(each._buffers)) for each in module.modules()]
    try:
        yield
    finally:
        for each, parameters, buffers in before:
            each._parameters.update(parameters)
            each._buffers.update(buffers)
