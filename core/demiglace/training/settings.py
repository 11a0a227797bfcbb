"""How to train, as the loop takes it: ready-made callables, no names to look up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from demiglace.data import Batch
    from demiglace.passes import Position
    from demiglace.training.pacing import Pacer

TaskLoss: TypeAlias = "Callable[[Any, Batch], Tensor]"
"""A scalar loss of the model's outputs and the batch that gave them."""


@dataclass(frozen=True)
class Stopping:
    """When to stop before the end, judged after each epoch on the validation split."""

    #: Epochs without improvement after which the training ends.
    patience: int
    #: The least change that counts as one.
    min_delta: float = 0.0


@dataclass(frozen=True)
class Settings:
    """How to train: exactly one of `epochs` and `steps`, an optimizer, and what else is wanted."""

    #: Makes the optimizer for the parameters to train.
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    #: The trainer's own loss; `None` leaves it to the participants' terms.
    loss: TaskLoss | None
    epochs: int | None = None
    #: Optimizer steps.
    steps: int | None = None
    #: Makes what moves the learning rate along.
    pacer: Callable[[Optimizer, Position], Pacer] | None = None
    #: Optimizer steps over which the learning rate rises linearly from 0, of the whole training.
    warmup: Callable[[Position], int] | None = None
    #: Batches whose gradients make one optimizer step.
    accumulate: int = 1
    #: The largest norm of all gradients together.
    clip_norm: float | None = None
    #: The dtype that autocast computes in.
    autocast: torch.dtype | None = None
    #: Decay of an exponential moving average of the weights, which then replaces them.
    ema: float | None = None
    stopping: Stopping | None = None
    keep: Literal["last", "best"] = "last"
    #: The validation figure that judges, `loss` or `accuracy`.
    metric: str = "loss"
    #: Whether to measure the validation split after each epoch even if nothing depends on it.
    validate: bool = False
    channels_last: bool = False
    #: The backend of `torch.compile`; `None` runs the module as it is.
    compile: str | None = None
    #: Whether to write a checkpoint after each epoch into the context's folder.
    checkpoint: bool = False

    @property
    def needs_validation(self) -> bool:
        """Whether the training's course depends on the validation split."""
        return self.keep == "best" or self.stopping is not None
