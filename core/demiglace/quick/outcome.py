"""Which bounds of a goal a finished run kept, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demiglace.quick.goal import Goal

if TYPE_CHECKING:
    from demiglace.engine.gates import Verdict

_GATES = {"smaller": "bytes", "fewer_macs": "macs", "points": "accuracy"}


@dataclass(frozen=True)
class Bound:
    """One bound of a goal and what was reached."""

    #: The bound as the goal says it.
    asked: str
    #: The factor, or the points of accuracy that were lost.
    reached: float
    met: bool
    #: Whether the sample of a share settles it.
    decided: bool

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        sure = "" if self.decided else " (the sample is too small to decide)"
        return f"goal {verdict}: {self.asked}: {self._reached()}{self._short()}{sure}"

    @property
    def _is_factor(self) -> bool:
        return "x " in self.asked

    def _reached(self) -> str:
        if self._is_factor:
            return f"{self.reached:.2f}x"
        return f"{abs(self.reached):.2f} points {'lost' if self.reached >= 0 else 'gained'}"

    def _short(self) -> str:
        """By how much a bound was missed."""
        if self.met:
            return ""
        wanted = float(self.asked.removeprefix("<= ").partition("x " if self._is_factor else " ")[0])
        if self._is_factor:
            return f", {100 * (wanted / self.reached - 1):.1f} % too large"
        return f", {self.reached - wanted:.2f} too many"


def bounds(goal: Goal, verdicts: Sequence[Verdict]) -> Iterator[Bound]:
    """Each bound of the goal with the verdict of its gate; a gate that the user took out has none."""
    by_metric = {verdict.metric: verdict for verdict in verdicts}
    for name, metric in _GATES.items():
        value, verdict = getattr(goal, name), by_metric.get(metric)
        if value is None or verdict is None or verdict.reference is None:
            continue
        lost = 100 * (verdict.reference - verdict.value)
        reached = lost if name == "points" else verdict.reference / max(verdict.value, 1e-9)
        yield Bound(str(Goal(**{name: value})), reached, verdict.passed, verdict.decided)
