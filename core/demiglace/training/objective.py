"""The loss of a batch: the trainer's own term and those of the participants, each by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from demiglace.errors import UsageError
from demiglace.passes import Participant
from demiglace.training.overriding import overriding

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.data import Batch
    from demiglace.training.task import Task

TASK = "task"
"""The name of the trainer's own term."""


class Objective:
    """Computes `sum of terms`, the trainer's own multiplied by every participant's `task_weight`."""

    def __init__(
        self,
        task: Task | None,
        participants: Sequence[Participant[Any]],
        device: torch.device,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._task_weight = math.prod(one.task_weight for one in participants)
        self._task = task if self._task_weight else None
        self._losses = [(label(one), one.loss) for one in overriding(participants, "loss")]
        self._autocast, self._device = autocast, device
        if self._task is None and not self._losses:
            raise UsageError(
                "nothing is to be minimised: the trainer has no loss and no participant adds one",
                hint="set `loss`, or add a participant such as a distiller",
            )

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The total loss of a batch, and its terms by name."""
        with self._precision():
            outputs, task = self._forward(module, batch)
            terms: dict[str, Tensor] = {}
            if task is not None:
                terms[TASK] = task if self._task_weight == 1.0 else task * self._task_weight
            for name, loss in self._losses:
                terms |= {f"{name}.{term}": value for term, value in loss(batch, outputs).items()}
        return self._total(terms), terms

    def _forward(self, module: nn.Module, batch: Batch) -> tuple[Any, Tensor | None]:
        return (batch.run(module), None) if self._task is None else self._task(module, batch)

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        if not terms:
            raise UsageError("no participant gave a loss term", hint="set the trainer's `loss`")
        first, *others = terms.values()
        for other in others:
            first = first + other
        return first

    def _precision(self) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)


def label(participant: Participant[Any]) -> str:
    """How messages and loss terms name a participant."""
    return participant.id or type(participant).__name__


def culprit(terms: Mapping[str, Tensor]) -> str:
    """The terms of a loss that are not finite."""
    spoilt = [f"loss term {name!r} is {term.item()}" for name, term in terms.items() if not term.isfinite()]
    return ", ".join(spoilt) or "the sum of the loss terms is infinite"
