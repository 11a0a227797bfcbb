"""What a run gives back to a program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from demiglace.engine.gates import Verdict
    from demiglace.engine.record import RunRecord, StepRecord
    from demiglace.graph import ModelGraph


@dataclass(frozen=True)
class Result:
    """A finished run."""

    #: The compressed model with its masks and edits.
    graph: ModelGraph
    #: The run directory, or `None` when the run was asked for without one.
    path: Path | None
    #: Everything that `run.json` holds.
    record: RunRecord
    gates: tuple[Verdict, ...] = ()
    #: Files and folders that code could be loaded from; whoever loads the result must allow them again.
    code: tuple[Path, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The compressed model; a caller's own module was worked on in place."""
        return self.graph.module

    @property
    def metrics(self) -> dict[str, float]:
        """The figures after the last step by name: the evaluators' and the engine's own."""
        last = self.record.steps[-1]
        footprint = {} if last.after is None else last.after.figures()
        return footprint | {name: metric.value for name, metric in last.metrics.items()}

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The record of each step, in order."""
        return tuple(self.record.steps)

    @property
    def passed(self) -> bool:
        """Whether every gate was kept."""
        return all(verdict.passed for verdict in self.gates)
