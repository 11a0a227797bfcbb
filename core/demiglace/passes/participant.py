"""A pass at work inside a training loop: what it may do there, and what it sees.

The loop alone owns the model, the optimizer, the precision and the device. It calls a participant at
fixed moments and does for it what touches them:

    prepare                          once, before the optimizer exists
    before_step -> loss -> after_step    each optimizer step; `loss` once for each batch of it
    after_epoch                      each epoch
    on_edit                          whenever any participant changed the model
    finish                           once, after the last step, with the chosen weights in place
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from demiglace.passes.base import Pass, Problem
from demiglace.passes.config import Config
from demiglace.passes.context import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.data import Batch
    from demiglace.graph import Edit, ModelGraph

C = TypeVar("C", bound=Config)


@dataclass
class Position:
    """Where the training stands; the loop moves it on."""

    #: Optimizer steps of the whole training.
    steps: int
    #: Optimizer steps of one epoch.
    steps_per_epoch: int
    #: Optimizer steps done.
    step: int = 0
    #: Epochs done.
    epoch: int = 0


class Loop(Protocol):
    """What a participant sees of the training loop."""

    model: ModelGraph
    context: Context
    at: Position

    def apply(self, edits: Iterable[Edit]) -> None:
        """Change the model now, all edits or none; optimizer state, averages and participants follow."""

    def capture(self, layer: str, of: nn.Module | None = None) -> Callable[[], Tensor]:
        """A function that gives the latest output of a layer of the model, or of a module such as a teacher.

        It is there after a forward pass, in `loss` or in `prepare`, until the step is done.

        Raises:
            UsageError: when there is no such layer; names the nearest.
        """

    def train_also(self, parameters: Iterable[nn.Parameter]) -> None:
        """Train further parameters with the model's (only in `prepare`): projections, learned scales."""

    def cut_also(self, parameter: nn.Parameter, dim: int, kept: Sequence[int]) -> None:
        """Keep some indices of one dimension of such a parameter; the optimizer's state follows."""


class Participant(Pass[C]):
    """Takes part in a training loop; every method does nothing unless overridden."""

    #: The participant's id in the recipe, set by the engine; messages and loss terms carry it.
    id: str = ""

    @property
    def task_weight(self) -> float:
        """The weight that this participant leaves to the trainer's own loss; those of all are multiplied."""
        return 1.0

    @property
    def settled(self) -> bool:
        """Whether it is done changing the model: best weights and early stopping wait for that."""
        return True

    def preflight_teacher(self, model: ModelGraph, teacher: ModelGraph) -> Iterable[Problem]:
        """Like `preflight`, with the recipe's teacher, where its structure is known before the run.

        Neither has weights. Each has an example input where its own source knows the shape; the data's may
        have another.
        """
        return ()

    def prepare(self, loop: Loop) -> None:
        """Get ready, before the optimizer exists: make edits, capture layers, add parameters."""

    def loss(self, batch: Batch, outputs: Any) -> Mapping[str, Tensor]:
        """Named scalar terms to add to the loss, for one batch and the model's outputs on it."""
        return {}

    def before_step(self, at: Position) -> None:
        """Called before the forward pass of optimizer step `at.step` (from 0)."""

    def after_step(self, at: Position) -> None:
        """Called when the optimizer has stepped; `at.step` steps are done."""

    def after_epoch(self, at: Position) -> None:
        """Called after each epoch; `at.epoch` epochs are done."""

    def on_edit(self, edits: Sequence[Edit]) -> None:
        """Follow edits that were just applied, by this participant or another."""

    def finish(self) -> Iterable[Edit]:
        """Edits that conclude the training; the loop applies them."""
        return ()

    def state(self) -> Mapping[str, object]:
        """What a checkpoint must keep to go on later: tensors and JSON values."""
        return {}

    def restore_state(self, state: Mapping[str, object]) -> None:
        """Take up what `state` gave; called after `prepare`."""
