"""Which bounds of a goal a finished run kept, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demiglace.quick.goal import Goal
from demiglace.report.units import data_size

if TYPE_CHECKING:
    from demiglace.engine.gates import Verdict
    from demiglace.engine.record import RunRecord

_GATES = {"smaller": "bytes", "fewer_macs": "macs", "points": "accuracy", "faster": "speedup"}


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
            how = "slow" if self.asked.endswith("faster") else "large"
            return f", {100 * (wanted / self.reached - 1):.1f} % too {how}"
        return f", {self.reached - wanted:.2f} too many"


def bounds(goal: Goal, verdicts: Sequence[Verdict]) -> Iterator[Bound]:
    """Each bound of the goal with the verdict of its gate; a gate that the user took out has none."""
    for name, metric in _GATES.items():
        value = getattr(goal, name)
        # A speed-up is of a runtime and a batch size, which its name ends with.
        verdict = next((one for one in verdicts if one.metric.partition("_")[0] == metric), None)
        reached = None if value is None or verdict is None else _reached(name, verdict)
        if verdict is not None and reached is not None:
            yield Bound(str(Goal(**{name: value})), reached, verdict.passed, verdict.decided)


def _reached(name: str, verdict: Verdict) -> float | None:
    """The factor or the points that a verdict is about; `None` where it compares with nothing."""
    if name == "faster":
        return verdict.value
    if verdict.reference is None:
        return None
    lost = 100 * (verdict.reference - verdict.value)
    return lost if name == "points" else verdict.reference / max(verdict.value, 1e-9)


def packed_file(record: RunRecord) -> str | None:
    """What the packed file of a run takes, in words; `None` where it made none."""
    made = [step.figures for step in record.steps if step.use == "export.packed"]
    if not made or record.original is None:
        return None
    size = made[-1]["bytes"]
    factor = record.original.bytes / size
    return f"{made[-1]['file']}: {data_size(size)}, {factor:.2f}x smaller than the model's tensors were"
