"""`distill.logits`: learn the teacher's softened outputs (Hinton, Vinyals & Dean 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import Contract, Kind, Loop, Participant, PassSpec, Position, Problem, Share
from demiglace_distillers.teacher import (
    SAME_CLASSES,
    Taught,
    answer,
    misfit,
    output_problems,
    teacher_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.data import Batch
    from demiglace.graph import ModelGraph


class LogitsConfig(Taught):
    """Learn from a teacher's outputs, softened by a temperature."""

    temperature: Annotated[float, Field(gt=0.0)] = 4.0
    """Divides the logits of both before the softmax; more than 1 shows more of the unlikely classes."""
    alpha: Share = 0.5
    """Weight of this term; the trainer's own loss keeps the rest, 1 - alpha."""
    cache: bool = False
    """Whether to remember the teacher's outputs of each example; needs data without random augmentation."""

    def contract(self) -> Contract:
        return super().contract() | Contract.of(needs=("data.fixed",) if self.cache else ())

    def words(self) -> str:
        soft = f"{self.alpha:.0%} of the loss from {self.teacher_words()}"
        cached = ", each example's outputs computed once" if self.cache else ""
        return f"{soft} at temperature {self.temperature:g}{cached}"


class Logits(Participant[LogitsConfig]):
    """Adds `alpha T^2 KL(teacher / T || student / T)`, the mean over the examples.

    The factor T^2 keeps the gradient's size when the temperature changes (section 2 of the paper). Outputs
    have shape `[n, classes]` or `[n, classes, ...]`.
    """

    @property
    def task_weight(self) -> float:
        return 1.0 - self.config.alpha

    def preflight_teacher(self, model: ModelGraph, teacher: ModelGraph) -> Iterator[Problem]:
        yield from output_problems(model, teacher)

    def prepare(self, loop: Loop) -> None:
        from demiglace_distillers.cache import OutputCache

        self._teacher = teacher_of(self.config, loop)
        self._device = loop.context.device
        self._cache = OutputCache(loop.context.data) if self.config.cache else None

    def loss(self, batch: Batch, outputs: Any) -> Mapping[str, Tensor]:
        from demiglace.training import prediction

        student = prediction(outputs)
        teacher = self._taught(batch)
        if student.shape != teacher.shape:
            raise UsageError(misfit(teacher.shape, student.shape), hint=SAME_CLASSES)
        return {"kl": self.config.alpha * softened_kl(student, teacher, self.config.temperature)}

    def state(self) -> Mapping[str, object]:
        return {} if self._cache is None else self._cache.state()

    def restore_state(self, state: Mapping[str, object]) -> None:
        if self._cache is not None:
            self._cache.restore(state, self._device)

    def after_epoch(self, at: Position) -> None:
        if self._cache is not None and at.epoch == 2:
            self._cache.check()

    def _taught(self, batch: Batch) -> Tensor:
        from demiglace.training import prediction

        if self._cache is None:
            return prediction(answer(self._teacher, batch))
        return self._cache.get(batch, lambda: prediction(answer(self._teacher, batch)))


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`: summed over classes, mean over the rest.

    Args:
        student: logits, shape `[n, classes]` or `[n, classes, ...]`.
        teacher: logits of the same shape.
        temperature: T, above 0.
    """
    from torch.nn import functional as F

    own = F.log_softmax(student.movedim(1, -1).flatten(0, -2).float() / temperature, dim=1)
    target = F.log_softmax(teacher.movedim(1, -1).flatten(0, -2).float() / temperature, dim=1)
    # torch's default reduction would divide by the number of classes as well.
    return F.kl_div(own, target, reduction="batchmean", log_target=True) * temperature**2


SPEC = PassSpec(
    "distill.logits",
    Kind.PARTICIPANT,
    LogitsConfig,
    "demiglace_distillers.logits:Logits",
    """\
[[pass]]
use = "train.supervised"
epochs = 3

[[pass.with]]
use = "distill.logits"
temperature = 4.0
alpha = 0.5
""",
)
