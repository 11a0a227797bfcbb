"""What moves the learning rate along: a torch scheduler, and a linear warm-up before any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch.optim.lr_scheduler import ReduceLROnPlateau

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from demiglace.passes import Position


@dataclass
class Pacer:
    """A torch scheduler with the unit that it counts in."""

    scheduler: LRScheduler
    per: Literal["step", "epoch"]

    @property
    def needs_validation(self) -> bool:
        """Whether it goes by the validation loss."""
        return isinstance(self.scheduler, ReduceLROnPlateau)

    def after_step(self) -> None:
        """Called after each optimizer step."""
        if self.per == "step":
            self.scheduler.step()

    def after_epoch(self, validation_loss: float | None) -> None:
        """Called after each epoch, with the validation loss if it was measured."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if validation_loss is not None:
                self.scheduler.step(validation_loss)
        elif self.per == "epoch":
            self.scheduler.step()


def warm_up(optimizer: Optimizer, steps: int, at: Position) -> None:
    """Scale the learning rate by 1/n, 2/n, ... 1 in the first `n` steps, over any scheduler.

    The rate is scaled only while the optimizer steps, so a scheduler that computes the next rate from the
    present one sees its own.

    Args:
        optimizer: whose rates are scaled.
        steps: n.
        at: where the training stands.
    """
    own_rates: list[float | Tensor] = []

    def before(*_: Any) -> None:
        if at.step >= steps:
            return
        own_rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * (at.step + 1) / steps

    def after(*_: Any) -> None:
        if at.step >= steps:
            return
        for group, rate in zip(optimizer.param_groups, own_rates, strict=True):
            group["lr"] = rate

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
