"""An exponential moving average of the weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from demiglace.training.masks import zero_masked

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import Cut, ModelGraph


class Average:
    """Averages of parameters: `a <- d a + (1 - d) w` after each step.

    In the first steps the decay is smaller, `d = min(decay, (1 + n) / (10 + n))` after `n` steps, so that
    the average does not keep the initial weights of a short training.
    """

    def __init__(self, model: ModelGraph, decay: float) -> None:
        self.model, self.decay = model, decay
        self._names = [name for name, one in model.module.named_parameters() if one.requires_grad]
        self._live: list[nn.Parameter] = [model.module.get_parameter(name) for name in self._names]
        self._means = [one.detach().clone() for one in self._live]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        get_ema_multi_avg_fn(decay)(self._means, self._live, self._steps)

    def follow(self, cut: Cut) -> None:
        """Cut the average of a parameter as the parameter was cut; buffers have none."""
        parameters = dict(self.model.module.named_parameters(remove_duplicate=False))
        parameter = parameters.get(cut.tensor)
        for index, live in enumerate(self._live):
            if live is parameter:
                kept = torch.tensor(cut.kept, device=live.device)
                self._means[index] = self._means[index].index_select(cut.dim, kept)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and how many steps are in them."""
        return {"steps": self._steps, "means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._steps = state["steps"]
        self._means = [mean.to(live.device) for mean, live in zip(state["means"], self._live, strict=True)]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the averages as its weights, for a while."""
        self._swap()
        zero_masked(self.model)
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def write(self) -> None:
        """Make the averages the model's weights, masked ones not yet zeroed."""
        for live, mean in zip(self._live, self._means, strict=True):
            live.copy_(mean)

    def _swap(self) -> None:
        for index, live in enumerate(self._live):
            live.data, self._means[index] = self._means[index], live.data
