"""Participants at work in a loop that is not ours: they follow the caller's own optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from demiglace.data import as_batch
from demiglace.errors import Diverged, UsageError
from demiglace.training.changing import Changing
from demiglace.training.masks import hold_masks, zero_masked
from demiglace.training.objective import TASK, culprit, label
from demiglace.training.overriding import overriding

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from demiglace.graph import ModelGraph
    from demiglace.passes import Context, Participant, Position


class Session(Changing):
    """Participants in a caller's loop, as a context manager.

    They act between two steps of the caller's optimizer: masks are held, schedules advance, and after a cut
    the optimizer's state fits again. An epoch is over after `at.steps_per_epoch` steps. Leaving the block
    applies what participants end with; the masks stay in `model.masks`.
    """

    def __init__(
        self,
        model: ModelGraph,
        context: Context,
        at: Position,
        participants: Sequence[Participant[Any]],
        optimizer: Optimizer,
    ) -> None:
        super().__init__(model, context, at, ExitStack())
        self.optimizer = optimizer
        self._participants = participants
        self._losses = [(label(one), one) for one in overriding(participants, "loss")]
        self._task_weight = math.prod(one.task_weight for one in participants)

    def __enter__(self) -> Self:
        self._refuse_others()
        with self._cleanup:
            self._prepare_all(self._participants)
            # In a group of its own it would be unknown to a scheduler that was made before.
            self.optimizer.param_groups[0]["params"].extend(self.extra)
            self._started = True
            self._cleanup.callback(hold_masks(self.optimizer, self.model).remove)
            self._cleanup.callback(self.optimizer.register_step_post_hook(self._stepped).remove)
            self._before()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._cleanup.__exit__(kind, error, traceback)
            return
        with self._cleanup:
            zero_masked(self.model)
            self._conclude(self._participants)
            self._warn_if_unsettled()

    def loss(self, batch: object, outputs: Any, own: Tensor | None = None) -> Tensor:
        """The loss of a batch with the participants' terms.

        Args:
            batch: as the loader gave it: a tensor, `(inputs, labels)` or a dict, on the model's device.
            outputs: what the model gave for it.
            own: the caller's scalar loss, of which distillers may leave a part only.

        Raises:
            UsageError: when neither the caller nor a participant has a loss.
            Diverged: when a term is NaN or infinite; nothing was stepped yet.
        """
        terms: dict[str, Tensor] = {}
        if own is not None and self._task_weight:
            terms[TASK] = own * self._task_weight
        made = as_batch(batch)
        for name, participant in self._losses:
            terms |= {f"{name}.{term}": value for term, value in participant.loss(made, outputs).items()}
        if not terms:
            raise UsageError("there is no loss: no participant adds one", hint="give own=")
        total = sum(terms.values(), start=next(iter(terms.values())).new_zeros(()))
        if not math.isfinite(total.item()):
            at = self.at
            raise Diverged(
                f"training diverged at step {at.step + 1} of {at.steps}: {culprit(terms)}",
                hint="lower the learning rate, clip gradients, or look for NaN in the data",
            )
        return total

    def save(self, folder: str | Path) -> None:
        """Save the model with its masks and cuts, as `demiglace.load` opens it.

        Raises:
            ArtifactError: when the folder exists or cannot be written.
        """
        from demiglace.artifact import GraphOrigin, save
        from demiglace.graph.plain import portable

        save(self.model, folder, origin=self.model.origin or GraphOrigin(), graph=portable(self.model))

    def _refuse_others(self) -> None:
        """See that the optimizer trains this model."""
        trained = {id(one) for group in self.optimizer.param_groups for one in group["params"]}
        own = [one for one in self.model.module.parameters() if one.requires_grad]
        if not any(id(one) in trained for one in own):
            raise UsageError(
                "the optimizer trains no parameter of this model",
                hint="make the optimizer from model.parameters(), after moving the model to its device",
            )

    def _before(self) -> None:
        if self.at.step < self.at.steps:
            for participant in self._participants:
                participant.before_step(self.at)

    def _stepped(self, *_: Any) -> None:
        """Called when the caller's optimizer has stepped."""
        at = self.at
        self._forget_captures()
        at.step += 1
        for participant in self._participants:
            participant.after_step(at)
        if at.step % at.steps_per_epoch == 0:
            at.epoch += 1
            for participant in self._participants:
                participant.after_epoch(at)
        self._before()

    def _warn_if_unsettled(self) -> None:
        for participant in self._participants:
            if not participant.settled:
                self.context.warn(
                    f"the loop ended at step {self.at.step} of {self.at.steps}, "
                    f"before {label(participant)!r} was through with its schedule"
                )
