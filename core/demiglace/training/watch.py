"""Which epoch was best, when to give up, and the weights to go back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
        self._copies = [(one, one.detach().clone()) for one in self._tensors()]

    def _tensors(self) -> list[Tensor]:
        return [*self.model.module.parameters(), *self.model.module.buffers()]

    def state_dict(self) -> dict[str, Any]:
        """The copy."""
        return {"copies": [copy for _, copy in self._copies]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a copy, of the model as it is now."""
        pairs = zip(self._tensors(), state["copies"], strict=True)
        self._copies = [(one, copy.to(one.device)) for one, copy in pairs]

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

    def state_dict(self) -> dict[str, Any]:
        """The best so far and how long ago it was."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.best, self.best_epoch, self._waited = state["best"], state["best_epoch"], state["waited"]
