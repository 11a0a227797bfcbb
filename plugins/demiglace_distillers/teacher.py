"""Where a distiller's teacher comes from, and running it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from demiglace.errors import UsageError
from demiglace.passes import Config, Contract, Loop, Problem

if TYPE_CHECKING:
    from torch import nn

    from demiglace.data import Batch
    from demiglace.graph import ModelGraph


SAME_CLASSES = "teacher and student must tell the same classes apart"
_FACTS = {"recipe": "teacher", "original": "original"}
_WORDS = {
    "recipe": "the teacher",
    "start": "the model as training finds it",
    "original": "the model as it was before the editors",
}


class Taught(Config):
    """Options of a pass that learns from a teacher."""

    teacher: Literal["recipe", "start", "original"] = "recipe"
    """`recipe`: the one of the recipe's `[teacher]` table; `start`: a copy of the model as it is when this
    training starts, before the participants that stand below this one change it; `original`: the model before
    the editors that stand between this training and the last (both are self-distillation)."""

    def contract(self) -> Contract:
        return Contract.of(needs=() if self.teacher == "start" else (_FACTS[self.teacher],))

    def teacher_words(self) -> str:
        """The teacher as a phrase."""
        return _WORDS[self.teacher]


def teacher_of(config: Taught, loop: Loop) -> nn.Module:
    """The teacher's module, in evaluation mode and without gradients.

    Raises:
        UsageError: when the recipe has none.
    """
    import copy

    if config.teacher == "start":
        module = copy.deepcopy(loop.model.module)
    elif config.teacher == "original":
        module = copy.deepcopy(_original(loop).module)
    elif loop.context.teacher is None:
        raise UsageError(
            "there is no teacher to learn from",
            hint='give the recipe a [teacher] table, or teacher = "start" for self-distillation',
        )
    else:
        module = loop.context.teacher().module
    return module.to(loop.context.device).eval().requires_grad_(False)


def _original(loop: Loop) -> ModelGraph:
    if loop.context.original is None:
        raise UsageError(
            "there is no original to learn from: nothing was taken from the model before this training",
            hint='write teacher = "start"',
        )
    return loop.context.original


def output_problems(model: ModelGraph, teacher: ModelGraph) -> Iterator[Problem]:
    """Whether a teacher tells as many classes apart as the student, where both give a row an example."""
    student, its = _shape(model), _shape(teacher)
    if student is not None and its is not None and student[1] != its[1]:
        yield Problem(misfit(its, student), hint=SAME_CLASSES)


def misfit(teacher: Sequence[int], student: Sequence[int]) -> str:
    """What is wrong when outputs have different shapes."""
    return f"the teacher's outputs have shape {list(teacher)}, the model's {list(student)}"


def _shape(model: ModelGraph) -> tuple[int, ...] | None:
    """The shape `[n, classes]` of a network's predictions, `None` where only the run will tell."""
    import torch

    from demiglace.training import prediction

    if model.example is None:
        return None
    try:
        with torch.no_grad():
            shape = tuple(prediction(model.module(*model.example.args)).shape)
    except (RuntimeError, TypeError, ValueError, UsageError):  # without values, not everything runs
        return None
    return shape if len(shape) == 2 else None


def answer(teacher: nn.Module, batch: Batch) -> Any:
    """The teacher's outputs on a batch.

    Raises:
        UsageError: when it does not take the batch's inputs.
    """
    import torch

    try:
        with torch.no_grad():
            return batch.run(teacher)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"the teacher does not take the data's inputs: {type(error).__name__}: {error}",
            hint="teacher and student must take the same inputs",
        ) from error
