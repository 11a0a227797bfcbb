"""`distill.features`: make inner layers give what a teacher's layers give (FitNets, Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.graph import Cut
from demiglace.passes import Kind, Loop, Participant, PassSpec, Problem
from demiglace_distillers.teacher import Taught, answer, teacher_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.data import Batch
    from demiglace.graph import Edit, ModelGraph


class FeaturesConfig(Taught):
    """Learn the outputs of a teacher's inner layers."""

    layers: Annotated[dict[str, str], Field(min_length=1)]
    """Layers of the student, each with the teacher's layer that it learns from: `{ fc1 = "fc1" }`."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Weight of the mean of the layers' terms; the trainer's own loss keeps its own."""
    distance: Literal["mse", "cosine"] = "mse"
    """`mse`: mean squared difference; `cosine`: 1 minus the cosine of each example's features."""

    def words(self) -> str:
        pairs = ", ".join(f"{own} from {taught}" for own, taught in self.layers.items())
        return f"learn layers of {self.teacher_words()}: {pairs}"


@dataclass
class Pair:
    """A layer of the student with one of the teacher's."""

    layer: str
    student: Callable[[], Tensor]
    teacher: Callable[[], Tensor]
    #: The one dimension along which widths differ, if any.
    dim: int | None = None
    #: Shape `[teacher's width, student's width]`, trained with the student.
    projection: nn.Parameter | None = None
    #: The teacher's indices that correspond to what is left of the student's layer.
    kept: Tensor | None = None


class Features(Participant[FeaturesConfig]):
    """Adds the distance between features of student and teacher, the mean over the named layers.

    Where the widths of two layers differ, along one dimension, a linear projection of the student's
    features is trained with it. When the student's layer is cut during training, the projection is cut
    with it; without one, the teacher's features are compared where the student still has them.
    """

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        yield from _unknown(model, "student", {layer: layer for layer in self.config.layers})

    def preflight_teacher(self, model: ModelGraph, teacher: ModelGraph) -> Iterator[Problem]:
        yield from _unknown(teacher, "teacher", self.config.layers)

    def prepare(self, loop: Loop) -> None:
        self._loop = loop
        self._teacher = teacher_of(self.config, loop)
        self._pairs = [
            Pair(own, loop.capture(own), loop.capture(taught, of=self._teacher))
            for own, taught in self.config.layers.items()
        ]
        self._look()
        for pair in self._pairs:
            self._fit(pair)

    def loss(self, batch: Batch, outputs: Any) -> Mapping[str, Tensor]:
        answer(self._teacher, batch)
        terms = [self._distance(pair) for pair in self._pairs]
        return {"features": self.config.weight * sum(terms[1:], start=terms[0]) / len(terms)}

    def on_edit(self, edits: Sequence[Edit]) -> None:
        for pair in self._pairs:
            for edit in edits:
                if isinstance(edit, Cut) and edit.dim == 0 and edit.tensor == f"{pair.layer}.weight":
                    self._follow(pair, edit)

    def _look(self) -> None:
        """Run student and teacher once, so that the captured layers show their shapes."""
        from demiglace.training import evaluating

        loop = self._loop
        if loop.context.data is None:
            raise UsageError("there is no data to train on", hint="give the recipe a [data] table")
        batch = next(loop.context.data.split("train").batches(2)).to(loop.context.device)
        with evaluating(loop.model.module, loop.context.device):
            batch.run(loop.model.module)
        answer(self._teacher, batch)

    def _fit(self, pair: Pair) -> None:
        """Give a pair a projection where the widths differ."""
        import torch
        from torch import nn

        student, teacher = pair.student(), pair.teacher()
        differing = _differing(pair, student, teacher)
        if differing is None:
            return
        pair.dim = differing
        bound = student.shape[differing] ** -0.5
        drawn = torch.rand(
            teacher.shape[differing], student.shape[differing], generator=self._loop.context.rng()
        )
        pair.projection = nn.Parameter(((2 * drawn - 1) * bound).to(student.device))
        self._loop.train_also([pair.projection])

    def _follow(self, pair: Pair, cut: Cut) -> None:
        import torch

        if pair.projection is not None:
            self._loop.cut_also(pair.projection, 1, cut.kept)
            return
        kept = torch.tensor(cut.kept, device=self._loop.context.device)
        pair.kept = kept if pair.kept is None else pair.kept[kept]

    def _distance(self, pair: Pair) -> Tensor:
        from torch.nn import functional as F

        student, teacher = pair.student(), pair.teacher()
        if pair.projection is not None and pair.dim is not None:
            student = (student.movedim(pair.dim, -1) @ pair.projection.T).movedim(-1, pair.dim)
        elif pair.kept is not None:
            teacher = teacher.index_select(_differing(pair, student, teacher) or 1, pair.kept)
        if student.shape != teacher.shape:
            raise UsageError(
                f"layer {pair.layer!r} was cut to shape {list(student.shape)} by cutting another layer; "
                f"the teacher's has {list(teacher.shape)}",
                hint="name the layer whose own weight is cut",
            )
        if self.config.distance == "mse":
            return F.mse_loss(student, teacher)
        return 1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1)).mean()


def _unknown(model: ModelGraph, whose: str, layers: Mapping[str, str]) -> Iterator[Problem]:
    """The layers, by the student's to which they belong, that a model does not have."""
    from demiglace.recipe import did_you_mean
    from demiglace.recipe.selectors import ROOT

    known = [name or ROOT for name, _ in model.module.named_modules()]
    for own, layer in layers.items():
        if layer not in known:
            hint = did_you_mean(layer, known, "its layers")
            yield Problem(f"the {whose} has no layer {layer!r}", ("layers", own), hint)


def _differing(pair: Pair, student: Tensor, teacher: Tensor) -> int | None:
    """The one dimension along which two features differ, the batch's aside.

    Raises:
        UsageError: when they differ in more than one.
    """
    same_rank = student.dim() == teacher.dim()
    differing = [
        dim for dim in range(1, student.dim()) if same_rank and student.shape[dim] != teacher.shape[dim]
    ]
    if same_rank and len(differing) <= 1:
        return differing[0] if differing else None
    raise UsageError(
        f"layer {pair.layer!r} gives features of shape {list(student.shape[1:])}, the teacher's layer "
        f"{list(teacher.shape[1:])}: more than a width differs",
        hint="pair layers of the same resolution",
    )


SPEC = PassSpec(
    "distill.features",
    Kind.PARTICIPANT,
    FeaturesConfig,
    "demiglace_distillers.features:Features",
    """\
[[pass]]
use = "train.supervised"
epochs = 3

[[pass.with]]
use = "distill.features"
layers = { fc1 = "fc1" }
""",
)
