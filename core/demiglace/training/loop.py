"""The one training loop. It owns the model, the optimizer, the precision and the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from demiglace.errors import Diverged, UsageError
from demiglace.measure import first_nonfinite
from demiglace.training.averaging import Average
from demiglace.training.changing import Changing, cuts_of
from demiglace.training.compiling import Compiled, explained
from demiglace.training.course import Course, Stateful
from demiglace.training.extent import extent
from demiglace.training.history import History
from demiglace.training.masks import hold_masks, mask_gradients, zero_masked
from demiglace.training.modes import forked_rng, kept_modes
from demiglace.training.objective import Objective, culprit
from demiglace.training.overriding import overriding
from demiglace.training.pacing import warm_up
from demiglace.training.processes import Processes
from demiglace.training.randomness import Randomness
from demiglace.training.task import task_of
from demiglace.training.validation import validate
from demiglace.training.watch import Snapshot, Watch

if TYPE_CHECKING:
    from torch import nn

    from demiglace.data import Batch, Data
    from demiglace.graph import ModelGraph, StructuralEdit
    from demiglace.passes import Context, Participant
    from demiglace.training.pacing import Pacer
    from demiglace.training.settings import Settings


CHECKPOINTS = "checkpoints"
"""The folder of checkpoints in a step's own folder."""


def fit(
    model: ModelGraph,
    context: Context,
    settings: Settings,
    participants: Sequence[Participant[Any]] = (),
) -> TrainingLoop:
    """Train `model.module` in place on `context.data`, with participants at work.

    All randomness comes from `context.seed`; torch's own random state and the training flags of the
    modules are given back. The result is the finished loop, with its `optimizer` and `history`.

    With a checkpoint in `context.resume`, the training goes on from there, to the bit as if it had not
    stopped; `model` and the participants are then as they were before its first step.

    Raises:
        UsageError: for an empty split, absent labels, a schedule that does not fit the training, a
            checkpoint of another training.
        ArtifactError: when a checkpoint cannot be written, or is damaged.
        Diverged: when a loss or a weight became NaN or infinite; the weights of the last good epoch are
            back in the model.
        Interrupted: when the run was asked to stop.
    """
    if context.data is None:
        raise UsageError("there is no data to train on", hint="give the recipe a [data] table")
    with forked_rng(context.device), kept_modes(model.module), ExitStack() as cleanup:
        torch.manual_seed(context.seed)
        loop = TrainingLoop(model, context, settings, participants, cleanup, context.data)
        was_training, module = model.module.training, model.module
        loop.run()
        if model.module is not module:
            model.module.train(was_training)
    return loop


class TrainingLoop(Changing):
    """One training from its first step to its last; what participants see as `Loop`."""

    def __init__(
        self,
        model: ModelGraph,
        context: Context,
        settings: Settings,
        participants: Sequence[Participant[Any]],
        cleanup: ExitStack,
        data: Data,
    ) -> None:
        self._processes = Processes()
        data = self._processes.whole(data)
        super().__init__(model, context, extent(data, settings), cleanup)
        self.history = History()
        self._settings, self._participants, self._data = settings, participants, data
        self._before = [one.before_step for one in overriding(participants, "before_step")]
        self._after = [one.after_step for one in overriding(participants, "after_step")]
        self._task = task_of(settings.loss, context.step)
        self._watch = Watch(settings.metric, settings.stopping)
        self._average: Average | None = None
        self._pacer: Pacer | None = None
        self._compiled: Compiled | None = None
        self._batch = 0
        self._shuffle = context.rng()

    def run(self) -> None:
        """Train from the first step, or from a checkpoint, to the last."""
        self._prepare()
        if self.context.resume is not None:
            self._course.take_up(self.context.resume)
            if self._settings.keep == "last":
                self._good.take()
        while not self._over():
            self._epoch()
            self._after_epoch()
        self._finish()

    def _prepare(self) -> None:
        module, settings = self.model.module, self._settings
        if settings.channels_last:
            module.to(memory_format=torch.channels_last)
            self._cleanup.callback(module.to, memory_format=torch.contiguous_format)
        self._prepare_all(self._participants)
        self._objective = Objective(self._task, self._participants, self.context.device, settings.autocast)
        if settings.compile is not None:
            self._compiled = Compiled(self.model.module, settings.compile)
        self._trained = self._parameters()
        self.optimizer = optimizer = settings.optimizer(self._trained)
        if settings.warmup is not None:
            warm_up(optimizer, settings.warmup(self.at), self.at)
        if settings.pacer is not None:
            self._pacer = settings.pacer(optimizer, self.at)
        if settings.ema is not None:
            self._average = Average(self.model, settings.ema)
        handle = hold_masks(optimizer, self.model)
        self._cleanup.callback(handle.remove)
        self._processes.start(self.model.module, self.at, self.context.seed)
        self._good = Snapshot(self.model)
        self._course = Course(self, self._participants, self._parts())
        self._started = True

    def _parts(self) -> dict[str, Stateful]:
        """What has a state of its own, by its name in a checkpoint."""
        generators = {"shuffle": self._shuffle, "loader": self._data.split("train").generator}
        own = {name: one for name, one in generators.items() if one is not None}
        parts: dict[str, Stateful] = {
            "optimizer": self.optimizer,
            "history": self.history,
            "watch": self._watch,
            "random": Randomness(own, self.context.device, self._processes),
        }
        if self._pacer is not None:
            parts["scheduler"] = self._pacer.scheduler
        if self._average is not None:
            parts["average"] = self._average
        if self._settings.keep == "best":
            parts["best"] = self._good
        return parts

    def _parameters(self) -> list[nn.Parameter]:
        own = [one for one in self.model.module.parameters() if one.requires_grad]
        if not own:
            raise UsageError("the model has no parameter to train", hint="set requires_grad on some of them")
        return list(dict.fromkeys(own + self.extra))

    def _over(self) -> bool:
        if self.at.step >= self.at.steps or self.history.stopped_early:
            return True
        return self._settings.epochs is not None and self.at.epoch >= self._settings.epochs

    def _epoch(self) -> None:
        self.model.module.train()
        self._batch = 0
        batches = self._data.train(self._shuffle)
        while self.at.step < self.at.steps and (group := self._group(batches)):
            self._step(group)
        if self._batch == 0:
            raise UsageError(
                f"the training split gave no batch in epoch {self.at.epoch + 1}",
                hint="hand in a loader that can be walked again and again",
            )

    def _group(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one optimizer step, on the device."""
        device = self.context.device
        return [batch.to(device) for batch in islice(batches, self._settings.accumulate)]

    def _step(self, group: list[Batch]) -> None:
        at = self.at
        for before in self._before:
            before(at)
        self.optimizer.zero_grad(set_to_none=True)
        examples = sum(len(batch) for batch in group)
        for batch in group:
            self._backward(batch, 1.0 if len(group) == 1 else len(batch) / examples)
        self._processes.sum_gradients(self._trained)
        self._clip()
        self.optimizer.step()
        self._processes.share_buffers(self.model.module)
        if self._average is not None:
            self._average.update()
        if self._pacer is not None:
            self._pacer.after_step()
        at.step += 1
        for after in self._after:
            after(at)

    def _backward(self, whole: Batch, share: float) -> None:
        """Add one batch's gradients, weighted by its share of the step's examples."""
        context, at = self.context, self.at
        context.check_interrupt()
        self._batch += 1
        batch, own = self._processes.part(whole)
        module = self.model.module if self._compiled is None else self._compiled.module
        with nullcontext() if self._compiled is None else explained():
            total, terms = self._objective(module, batch)
            loss, means = self._processes.mean(total, terms, own)
            value = loss.item()
            if not math.isfinite(value):
                self._diverge(culprit(means))
            share *= own
            (total if share == 1.0 else total * share).backward()
        self.history.add(value, means)
        self._forget_captures()
        context.on_progress(at.step, at.steps, f"epoch {at.epoch + 1}, loss {value:.4g}")

    def _clip(self) -> None:
        if self._settings.clip_norm is None:
            return
        mask_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self._trained, self._settings.clip_norm)

    def _after_epoch(self) -> None:
        self.at.epoch += 1
        for participant in self._participants:
            participant.after_epoch(self.at)
        spoilt = first_nonfinite(self.model)
        if spoilt is not None:
            self._diverge(f"{spoilt!r} holds NaN or infinity")
        with nullcontext() if self._average is None else self._average.in_place():
            figures = self._validated()
            self._judge(figures)
        self.history.close_epoch(self.at.epoch, self.at.step, figures)
        if self._pacer is not None:
            self._pacer.after_epoch(figures.get("loss"))
        if self._settings.checkpoint:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        """Write this epoch's, by the process that writes; the best epoch's stays beside it."""
        state = self._course.state()
        if self.context.folder is not None:
            best = self.history.best_epoch
            self._course.write(self.context.folder / CHECKPOINTS, state, () if best is None else (best,))

    def _validated(self) -> Mapping[str, float]:
        settings = self._settings
        by_plateau = self._pacer is not None and self._pacer.needs_validation
        if not (settings.validate or settings.needs_validation or by_plateau):
            return {}
        figures = validate(self.model, self.context, self._task)
        for name, value in figures.items():
            if not math.isfinite(value):
                self._diverge(f"the validation {name} is {value}")
        return figures

    def _judge(self, figures: Mapping[str, float]) -> None:
        """Keep the weights if they are the ones to go back to, and see whether it is time to stop."""
        better = True
        settled = all(one.settled for one in self._participants)
        if self._settings.needs_validation and settled:
            better = self._watch.see(self._judged(figures), self.at.epoch)
            self.history.best_epoch = self._watch.best_epoch
        if better or self._settings.keep == "last":
            self._good.take()
        self.history.stopped_early = settled and self._watch.stops and not self._over()

    def _judged(self, figures: Mapping[str, float]) -> float:
        metric = self._settings.metric
        if metric not in figures:
            raise UsageError(
                f"the validation split gives no {metric!r} to judge by", hint=f"it gives {', '.join(figures)}"
            )
        return figures[metric]

    def _finish(self) -> None:
        if self._settings.keep == "best":
            self._good.restore()
        elif self._average is not None:
            self._average.write()
        zero_masked(self.model)
        self._conclude(self._participants)
        self.context.on_progress(self.at.steps, self.at.steps, "trained")

    def _takes_graph(self, module: nn.Module) -> bool:
        own, its = dict(module.named_parameters()), dict(self.model.module.named_parameters())
        return (
            not self._captured_own and own.keys() == its.keys() and all(own[one] is its[one] for one in own)
        )

    def _follow(self, edits: Sequence[StructuralEdit]) -> None:
        super()._follow(edits)
        if not edits:
            return
        if self._average is not None:
            for cut in cuts_of(edits):
                self._average.follow(cut)
        if self._compiled is not None:
            self._compiled.forget(self.model.module)
        self._good.take()

    def _diverge(self, what: str) -> None:
        """Put the last good weights back and raise."""
        at = self.at
        self._good.restore()
        raise Diverged(
            f"training diverged at step {at.step + 1} of {at.steps} "
            f"(epoch {at.epoch + 1}, batch {self._batch}): {what}; the last good weights are back",
            hint="lower the learning rate, set clip_norm, or look for NaN in the data",
        )
