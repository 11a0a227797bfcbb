"""Which epoch was best, when to give up, and the weights to go back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from demiglace.training.masks import zero_masked

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph
    from demiglace.training.settings import Stopping


class Snapshot:
    """A copy of a model's parameters and buffers."""

    def __init__(self, model: ModelGraph) -> None:
        self.model = model
        self._copies: list[tuple[Tensor, Tensor]] = []
        self.take()

    def take(self) -> None:
        """Copy what is there now, over the older copy."""
        module = self.model.module
        self._copies = [(one, one.detach().clone()) for one in (*module.parameters(), *module.buffers())]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copy back; masks that came since are applied to it."""
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        zero_masked(self.model)


@dataclass
class Watch:
    """Follows one validation figure from epoch to epoch."""

    metric: str
    stopping: Stopping | None
    best: float | None = None
    best_epoch: int | None = None
    _waited: int = field(default=0)

    @property
    def stops(self) -> bool:
        """Whether the patience is over."""
        return self.stopping is not None and self._waited >= self.stopping.patience

    def see(self, value: float, epoch: int) -> bool:
        """Take in an epoch's figure; whether it is the best so far."""
        least = 0.0 if self.stopping is None else self.stopping.min_delta
        gain = (
            None if self.best is None else value - self.best if self.metric != "loss" else self.best - value
        )
        if gain is not None and not gain > least:
            self._waited += 1
            return False
        self.best, self.best_epoch, self._waited = value, epoch, 0
        return True
