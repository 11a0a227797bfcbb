"""An editor in a training loop: it acts at the points of a schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from demiglace.errors import told_of
from demiglace.graph import Cut, StructuralEdit, Swap
from demiglace.passes import Asked, Editor, Loop, Participant, Position, Problem, Schedule
from demiglace.training.masks import named_tensor
from demiglace.training.named import refuse
from demiglace.training.objective import label

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class Scheduled(Participant[Schedule]):
    """Any editor in a training loop, acting at the points of a schedule.

    A mask editor reads its amount as a share of all weights, masked ones included. One that cuts finds
    only what is left, so it is told the share of that which brings the total to the schedule's amount.
    """

    def __init__(self, editor: Editor[Any], schedule: Schedule, id: str = "") -> None:  # noqa: A002
        super().__init__(schedule)
        self.id = id
        self.editor = editor
        self._full: float | None = getattr(editor.config, "amount", None)
        self._cut = _CutShare()
        self._points: list[int] = []
        self._next = 0
        #: What the last point promised of the model.
        self._promised: list[Asked] = []

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        yield from self.editor.preflight(model)
        if self.config.shape == "one_shot":
            return
        if self._full is None:
            yield Problem(
                "a schedule raises `amount`, and these options have none",
                ("schedule",),
                'give `amount`, or schedule = { shape = "one_shot" }',
            )
        if problem := self.editor.unscheduled():
            yield problem

    @property
    def settled(self) -> bool:
        return self._next >= len(self._points)

    def prepare(self, loop: Loop) -> None:
        refuse(self.preflight(loop.model))
        self._loop = loop
        self._points = self.config.points(loop.at.steps, loop.at.steps_per_epoch)
        self._next = 0

    def before_step(self, at: Position) -> None:
        if self.settled or at.step < self._points[self._next]:
            return
        with told_of(f"participant {label(self)!r}"):
            self._act(self._points[self._next])
        self._next += 1

    def on_edit(self, edits: Sequence[Edit]) -> None:
        """Take back what was promised of weights that another participant has changed since."""
        kept = [one for one in self._promised if not _touched(one, edits)]
        asked = self._loop.context.asked
        asked[:] = [one for one in asked if one in kept or one not in self._promised]
        self._promised = kept

    def state(self) -> Mapping[str, object]:
        return {"next": self._next, "original": dict(self._cut.original), "left": dict(self._cut.left)}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        self._next = state["next"]
        self._cut = _CutShare(dict(state["original"]), dict(state["left"]))

    def _act(self, point: int) -> None:
        """Apply the editor's edits for one point; only the last point's promises are kept."""
        amount = self._amount(point)
        if amount == 0.0:
            return
        loop = self._loop
        context = replace(loop.context, asked=[], left_alone={})
        edits = list(self.editor.edits(loop.model, context, amount))
        self._cut.note(loop.model, edits)
        loop.apply(edits)
        if point == self._points[-1]:
            self._promised = context.asked
            loop.context.asked += context.asked
            loop.context.left_alone |= context.left_alone

    def _amount(self, point: int) -> float | None:
        """What to ask of the editor at a point; `None` leaves it to its own options."""
        if self._full is None or self.config.shape == "one_shot":
            return None
        return self._cut.of_remaining(self.config.amount(point, self._points, self._full))


def _touched(asked: Asked, edits: Sequence[Edit]) -> bool:
    """Whether edits change what a promise is about; one about the whole model, by anything structural."""
    if not asked.over:
        return any(isinstance(edit, StructuralEdit) for edit in edits)
    tensors = {getattr(edit, "tensor", None) for edit in edits}
    swapped = tuple(f"{edit.module}." for edit in edits if isinstance(edit, Swap))
    return any(name in tensors or name.startswith(swapped) for name in asked.over)


@dataclass
class _CutShare:
    """How many output channels are left of those that each cut weight had at first."""

    original: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def of_remaining(self, amount: float) -> float:
        """The share of what is left that must go for `amount` of the original to be gone."""
        if not self.original:
            return amount
        return max(0.0, 1 - (1 - amount) * sum(self.original.values()) / sum(self.left.values()))

    def note(self, model: ModelGraph, edits: Sequence[Edit]) -> None:
        """Count the output channels that `edits`, not yet applied, take from weights."""
        for cut in (edit for edit in edits if isinstance(edit, Cut) and edit.dim == 0):
            weight = named_tensor(model, cut.tensor)
            if weight.dim() < 2:
                continue
            self.original.setdefault(cut.tensor, weight.shape[0])
            self.left[cut.tensor] = len(cut.kept)
