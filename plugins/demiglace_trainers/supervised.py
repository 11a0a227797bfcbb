"""`train.supervised`: training on labels, and whatever its participants add."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from demiglace.passes import (
    Config,
    Context,
    Contract,
    Moment,
    Participant,
    Position,
    Problem,
    Trainer,
    moment_steps,
    moment_words,
)
from demiglace_trainers.memory import recall, remember, restore
from demiglace_trainers.options import Named, named

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from demiglace.graph import ModelGraph
    from demiglace.training import Pacer, Settings

CONTINUE = "continue"
NO_LOSS = "none"
_INDUCTOR = "inductor"
OPTIMIZER_STATE = "optimizer.state"


class EarlyStopping(Config):
    """When to stop before the end, judged after each epoch on the validation split."""

    patience: Annotated[int, Field(ge=1)]
    """Epochs without improvement after which training ends."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """The least change of the metric that counts as an improvement."""


class SupervisedConfig(Config):
    """Train on labelled examples; what takes part in it stands in `[[pass.with]]`."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Walks over the training examples; give either this or `steps`."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; give either this or `epochs`."""
    optimizer: str | Named = Named(name="Adam")
    """An optimizer of `torch.optim` with its options, `{ name = "SGD", lr = 0.1, momentum = 0.9 }`, or
    `continue`: that of the last training with its moments and its options, the learning rate included."""
    scheduler: str | Named | None = None
    """A learning-rate scheduler of `torch.optim.lr_scheduler` with its options. `CosineAnnealingLR`,
    `OneCycleLR`, `LinearLR` and `PolynomialLR` without a length span the training step by step; else the
    scheduler counts epochs, `OneCycleLR`, `CyclicLR` and trainings measured in steps excepted."""
    warmup: Moment = 0.0
    """The time over which the learning rate rises linearly from 0."""
    loss: str | Named = "cross_entropy"
    """A loss of `torch.nn.functional` with its options, `{ name = "cross_entropy", label_smoothing = 0.1 }`,
    or `none` when only participants add terms (then no labels are needed)."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients make one optimizer step."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    """The largest norm of all gradients together."""
    amp: Literal["bf16"] | None = None
    """Mixed precision: the dtype that autocast computes in."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights, which replaces them in the end."""
    early_stopping: EarlyStopping | None = None
    """When to stop before the end, judged on the validation split."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights stay: the last, or the best on the validation split."""
    metric: Literal["loss", "accuracy"] = "loss"
    """What judges an epoch for `early_stopping` and `keep`."""
    validate_each_epoch: bool = False
    """Whether to report the validation figures of each epoch even if nothing depends on them."""
    control: bool = False
    """Whether to also train the model as it was before the first step that compresses, in this training and
    in all since then, with the same options but without participants, and report both: what compression costs
    is then told from what training gains."""
    channels_last: bool = False
    """Whether to train in the memory format that convolutions are fastest in on many devices."""
    compile: bool | str = False
    """Whether to run the training steps through `torch.compile`, or the name of its backend; evaluation runs
    the module as it is. The default backend, `inductor`, needs a C++ compiler."""
    checkpoint: bool = False
    """Whether to write the training down after each epoch, whole or not at all, into the run directory under
    `steps/NUMBER-ID/checkpoints/`: the last epoch's stays, and the best one's where `keep` or
    `early_stopping` judges. `model` in it opens with `demiglace.load`."""

    @model_validator(mode="after")
    def _consistent(self) -> SupervisedConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of `epochs` and `steps`")
        if self.uses_validation and self.metric == "loss" and self.loss == NO_LOSS:
            raise ValueError(
                'with loss = "none" there is no validation loss to judge by; set metric = "accuracy"'
            )
        if self.control and self.loss == NO_LOSS:
            raise ValueError('control = true trains without participants, and with loss = "none" on nothing')
        return self

    @property
    def uses_validation(self) -> bool:
        """Whether the training's course depends on the validation split."""
        by_plateau = self.scheduler is not None and named(self.scheduler).name == "ReduceLROnPlateau"
        return self.keep == "best" or self.early_stopping is not None or by_plateau

    @property
    def compile_backend(self) -> str | None:
        """The backend of `torch.compile`, if any."""
        return _INDUCTOR if self.compile is True else self.compile or None

    def contract(self) -> Contract:
        needs = ["weights.float", "model.trainable", "data.train"]
        needs += ["labels"] * (self.loss != NO_LOSS)
        needs += ["data.validation"] * (self.uses_validation or self.validate_each_epoch)
        needs += [OPTIMIZER_STATE] * (self.optimizer == CONTINUE)
        return Contract.of(needs=tuple(needs), gives=(OPTIMIZER_STATE,), wants=("control",) * self.control)

    def words(self) -> str:
        length = f"{self.epochs} epochs" if self.epochs is not None else f"{self.steps} steps"
        optimizer = "the last optimizer" if self.optimizer == CONTINUE else named(self.optimizer).words()
        parts = [f"train for {length} with {optimizer}"]
        parts += [] if self.scheduler is None else [named(self.scheduler).words()]
        parts += [f"warm-up over {moment_words(self.warmup)}"] if self.warmup else []
        parts += ["no loss of its own" if self.loss == NO_LOSS else f"loss {named(self.loss).words()}"]
        parts += [f"the weights of the epoch with the best validation {self.metric}"] * (self.keep == "best")
        parts += [f"compiled by {self.compile_backend}"] * (self.compile_backend is not None)
        parts += ["a checkpoint each epoch"] * self.checkpoint
        parts += ["and the uncompressed model as a control"] * self.control
        return ", ".join(parts)


class Supervised(Trainer[SupervisedConfig]):
    """Trains with `demiglace.training.fit`."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.training import compile_problems, loss_problems, optimizer_problems, scheduler_problems

        config = self.config
        parameters = [one for one in model.module.parameters() if one.requires_grad]
        if not parameters:
            yield Problem("the model has no parameter to train", hint="set requires_grad on some of them")
        elif config.optimizer != CONTINUE:
            optimizer = named(config.optimizer)
            yield from optimizer_problems(optimizer.name, optimizer.options, parameters)
        if config.scheduler is not None:
            scheduler = named(config.scheduler)
            yield from scheduler_problems(scheduler.name, scheduler.options)
        if config.loss != NO_LOSS:
            loss = named(config.loss)
            yield from loss_problems(loss.name, loss.options)
        if config.compile_backend is not None:
            yield from compile_problems(config.compile_backend)

    def train(
        self, model: ModelGraph, context: Context, participants: Sequence[Participant[Any]] = ()
    ) -> Mapping[str, object]:
        from demiglace.training import refuse

        refuse(self.preflight(model))
        if self.config.checkpoint and context.folder is None:
            context.warn("checkpoint = true writes nothing, because the run has no directory")
        figures = self._fit(model, context, participants, checkpoint=self.config.checkpoint)
        if context.control is None:
            return figures
        if self.config.loss == NO_LOSS:
            context.warn('the control of a later step misses this training, which has loss = "none"')
            return figures
        beside = replace(context, carry=context.control.carry, resume=None)
        return figures | {"control": self._fit(context.control.model, beside, (), checkpoint=False)}

    def _fit(
        self,
        model: ModelGraph,
        context: Context,
        participants: Sequence[Participant[Any]],
        *,
        checkpoint: bool,
    ) -> dict[str, object]:
        from demiglace.training import fit, named_optimizer

        continues = self.config.optimizer == CONTINUE
        optimizer = recall(context) if continues else named(self.config.optimizer)
        make = named_optimizer(optimizer.name, optimizer.options)

        def build(parameters: list[nn.Parameter]) -> Optimizer:
            built = make(parameters)
            if continues:
                restore(context, model, built)
            return built

        settings = replace(self._settings(build), checkpoint=checkpoint)
        loop = fit(model, context, settings, participants)
        remember(context, model, optimizer, loop.optimizer)
        return loop.history.figures()

    def _settings(self, optimizer: Callable[[list[nn.Parameter]], Optimizer]) -> Settings:
        import torch

        from demiglace.training import Settings, Stopping, named_loss

        config = self.config
        loss, stopping = named(config.loss), config.early_stopping
        return Settings(
            optimizer=optimizer,
            loss=None if config.loss == NO_LOSS else named_loss(loss.name, loss.options),
            epochs=config.epochs,
            steps=config.steps,
            pacer=self._pacer(),
            warmup=self._warmup if config.warmup else None,
            accumulate=config.accumulate,
            clip_norm=config.clip_norm,
            autocast=torch.bfloat16 if config.amp == "bf16" else None,
            ema=config.ema,
            stopping=None if stopping is None else Stopping(stopping.patience, stopping.min_delta),
            keep=config.keep,
            metric=config.metric,
            validate=config.validate_each_epoch,
            channels_last=config.channels_last,
            compile=config.compile_backend,
        )

    def _pacer(self) -> Callable[[Optimizer, Position], Pacer] | None:
        from demiglace.training import named_pacer

        if self.config.scheduler is None:
            return None
        scheduler = named(self.config.scheduler)
        return named_pacer(scheduler.name, scheduler.options, by_epochs=self.config.epochs is not None)

    def _warmup(self, at: Position) -> int:
        return moment_steps(self.config.warmup, at.steps, at.steps_per_epoch)
