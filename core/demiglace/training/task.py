"""The trainer's own loss of a batch, and the outputs that it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from demiglace.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.data import Batch
    from demiglace.passes.context import LossStep
    from demiglace.training.settings import TaskLoss

Task: TypeAlias = "Callable[[nn.Module, Batch], tuple[Any, Tensor]]"
"""A module's outputs on a batch and their scalar loss."""


def task_of(loss: TaskLoss | None, step: LossStep | None) -> Task | None:
    """What computes the trainer's own loss: a caller's step where there is one, else the loss of outputs."""
    if step is not None:
        return _stepped(step)
    return None if loss is None else _run(loss)


def _run(loss: TaskLoss) -> Task:
    def task(module: nn.Module, batch: Batch) -> tuple[Any, Tensor]:
        outputs = batch.run(module)
        return outputs, loss(outputs, batch)

    return task


def _stepped(step: LossStep) -> Task:
    """The caller's function, with the outputs of the module's last call in it (`None` without a call)."""

    def task(module: nn.Module, batch: Batch) -> tuple[Any, Tensor]:
        outputs: list[Any] = [None]

        def keep(_module: nn.Module, _inputs: object, latest: object) -> None:
            outputs[0] = latest

        handle = module.register_forward_hook(keep)
        try:
            loss = step(module, batch)
        finally:
            handle.remove()
        _check(loss)
        return outputs[0], loss

    return task


def _check(loss: object) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        found = f"shape {list(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise UsageError(
            f"step(module, batch) gave {found} instead of a scalar loss", hint="return one number as a tensor"
        )
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise UsageError(
            "the loss that step(module, batch) gave does not depend on the weights",
            hint="compute it from the module's outputs, without detach() or item()",
        )
