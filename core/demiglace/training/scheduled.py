"""An editor in a training loop: it acts at the points of a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from demiglace.errors import UsageError
from demiglace.graph import Cut
from demiglace.passes import Editor, Loop, Participant, Position, Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        if schedule.shape != "one_shot":
            self._check_schedulable()

    @property
    def settled(self) -> bool:
        return self._next >= len(self._points)

    def prepare(self, loop: Loop) -> None:
        self._loop = loop
        self._points = self.config.points(loop.at.steps, loop.at.steps_per_epoch)
        self._next = 0

    def before_step(self, at: Position) -> None:
        if self.settled or at.step < self._points[self._next]:
            return
        self._act(self._points[self._next])
        self._next += 1

    def state(self) -> Mapping[str, object]:
        return {"next": self._next, "original": dict(self._cut.original), "left": dict(self._cut.left)}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        self._next = state["next"]
        self._cut = _CutShare(dict(state["original"]), dict(state["left"]))

    def _act(self, point: int) -> None:
        """Apply the editor's edits for one point; only the last point's promises are kept."""
        loop, last = self._loop, point == self._points[-1]
        context = replace(loop.context, asked=[], left_alone={})
        amount = None if self._full is None else self.config.amount(point, self._points, self._full)
        if amount is not None:
            amount = self._cut.of_remaining(amount)
        edits = list(self.editor.edits(loop.model, context, amount))
        self._cut.note(loop.model, edits)
        if edits:
            loop.apply(edits)
        if last:
            loop.context.asked += context.asked
            loop.context.left_alone |= context.left_alone

    def _check_schedulable(self) -> None:
        if self._full is None:
            raise UsageError(
                f"{type(self.editor).__name__} has no `amount` that a schedule could raise",
                hint='use schedule = { shape = "one_shot" }',
            )
        if getattr(self.editor.config, "of", "total") == "remaining":
            raise UsageError(
                'a schedule raises the amount of all weights, but the options say `of = "remaining"`',
                hint='write of = "total"',
            )


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
            weight = _tensor(model.module, cut.tensor)
            if weight.dim() < 2:
                continue
            self.original.setdefault(cut.tensor, weight.shape[0])
            self.left[cut.tensor] = len(cut.kept)


def _tensor(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its qualified name."""
    path, _, own = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(path), own)
    return tensor
