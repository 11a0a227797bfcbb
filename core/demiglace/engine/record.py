"""What is written down of a run: `run.json` as dataclasses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demiglace.measure import Footprint
    from demiglace.passes import Metric

FORMAT = 1
"""Version of `run.json`; a reader refuses a later one."""


@dataclass
class StepRecord:
    """One step: what was asked, what was done, what it changed."""

    id: str
    use: str
    kind: str
    #: `distribution version` of the plugin that gave the pass.
    plugin: str
    words: str
    options: dict[str, Any]
    contract: dict[str, list[str]]
    seed: int
    participants: list[dict[str, Any]] = field(default_factory=list)
    status: str = "running"
    #: Wall-clock and processor seconds of the pass alone, without the engine's measuring.
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    #: Digests of the model before and after.
    input: str = ""
    output: str = ""
    before: Footprint | None = None
    after: Footprint | None = None
    metrics_before: dict[str, Metric] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    #: The same of a control: the model that a trainer with `control = true` trained beside this one.
    control: dict[str, Metric] = field(default_factory=dict)
    #: Figures that the pass itself reports.
    figures: dict[str, Any] = field(default_factory=dict)
    #: What the pass promised, and what was measured.
    asked: list[dict[str, Any]] = field(default_factory=list)
    edits: dict[str, int] = field(default_factory=dict)
    verified: dict[str, Any] | None = None
    left_alone: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: What the pass says to a person at the end of the run, a line each.
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data; metrics as numbers, without their per-example tensors."""
        plain = {name: value for name, value in vars(self).items() if name not in _OWN_FORM}
        return plain | {
            "before": _footprint(self.before),
            "after": _footprint(self.after),
            "metrics_before": _metrics(self.metrics_before),
            "metrics": _metrics(self.metrics),
            "control": _metrics(self.control),
        }


_OWN_FORM = {"before", "after", "metrics_before", "metrics", "control"}


def _footprint(footprint: Footprint | None) -> dict[str, Any] | None:
    return None if footprint is None else asdict(footprint)


def _metrics(metrics: dict[str, Metric]) -> dict[str, dict[str, Any]]:
    return {
        name: {"value": metric.value, "unit": metric.unit, "examples": metric.examples}
        for name, metric in metrics.items()
    }


@dataclass
class RunRecord:
    """A whole run."""

    recipe: dict[str, Any]
    environment: dict[str, Any]
    status: str = "running"
    format: int = FORMAT
    error: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    #: What the source of the model says of what it opened.
    opened: dict[str, Any] = field(default_factory=dict)
    original: Footprint | None = None
    steps: list[StepRecord] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    #: Wall-clock and processor seconds from the first weight to the last file.
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    #: Processor seconds of the engine itself, beside passes, evaluators and sources.
    engine_cpu_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for `run.json`."""
        return vars(self) | {
            "original": _footprint(self.original),
            "steps": [step.to_json() for step in self.steps],
        }
