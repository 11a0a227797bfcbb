"""Judging a run's result against the recipe's bounds, and saying when the sample is too small to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from demiglace.errors import UsageError
from demiglace.passes import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.recipe import Gate

Z = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Verdict:
    """What a gate asked, what was measured, and how sure the answer is."""

    metric: str
    asked: str
    value: float
    #: The value at the step that the gate compares with.
    reference: float | None
    passed: bool
    #: Whether the sample settles it at 95 % confidence; figures that are no sample are always decided.
    decided: bool
    #: 95 % interval of the value, or of the change against the reference; `None` for exact figures.
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        against = "" if self.reference is None else f", was {self.reference:.6g}"
        sure = "" if self.decided else " (the sample is too small to decide)"
        verdict = "passed" if self.passed else "MISSED"
        return f"gate {verdict}: {self.metric} {self.asked}: {self.value:.6g}{against}{sure}"


def holds(gate: Gate, value: float, before: float | None) -> bool:
    """Whether a value keeps every bound of a gate; `before` is the value at `against`."""
    kept = [gate.min is None or value >= gate.min, gate.max is None or value <= gate.max]
    if before is not None:
        kept += [
            gate.max_drop is None or before - value <= gate.max_drop,
            gate.max_rise is None or value - before <= gate.max_rise,
            gate.min_ratio is None or value >= gate.min_ratio * before,
            gate.max_ratio is None or value <= gate.max_ratio * before,
        ]
    return all(kept)


def gate_words(gate: Gate) -> str:
    """A gate's bounds as a phrase."""
    bounds = {
        "at least {:g}": gate.min,
        "at most {:g}": gate.max,
        "at most {:g} below {against!r}": gate.max_drop,
        "at most {:g} above {against!r}": gate.max_rise,
        "at least {:g} times that of {against!r}": gate.min_ratio,
        "at most {:g} times that of {against!r}": gate.max_ratio,
    }
    said = [text.format(bound, against=gate.against) for text, bound in bounds.items() if bound is not None]
    return " and ".join(said)


def judge(name: str, gate: Gate, final: Metric, reference: Metric | None) -> Verdict:
    """One gate's verdict: the point estimates decide, the interval says how sure that is."""
    before = None if reference is None else reference.value
    passed = holds(gate, final.value, before)
    interval = _interval(final, reference)
    decided = interval is None or _settled(gate, interval, before, passed)
    return Verdict(name, gate_words(gate), final.value, before, passed, decided, interval)


def _interval(final: Metric, reference: Metric | None) -> tuple[float, float] | None:
    """The 95 % interval of the final value, by paired differences where there is a reference."""
    if final.per_example is None:
        return None
    if reference is None:
        return _wilson(final.per_example) if _is_binary(final.per_example) else _normal(final.per_example)
    if reference.per_example is None or reference.per_example.shape != final.per_example.shape:
        return None
    difference = final.per_example.double() - reference.per_example.double()
    low, high = _paired(difference) if _is_binary(difference.abs()) else _normal(difference)
    return reference.value + low, reference.value + high


def _settled(gate: Gate, interval: tuple[float, float], before: float | None, passed: bool) -> bool:
    """Whether both ends of the interval give the same answer as the point."""
    return all(holds(gate, end, before) is passed for end in interval)


def _is_binary(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _wilson(values: Tensor) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927)."""
    n, share = values.numel(), float(values.double().mean())
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return centre - half, centre + half


def _paired(difference: Tensor) -> tuple[float, float]:
    """Interval of the difference of paired shares, half a count added to each cell (Agresti & Min 2005)."""
    gained = float((difference > 0).sum()) + 0.5
    lost = float((difference < 0).sum()) + 0.5
    n = difference.numel() + 2
    centre = (gained - lost) / n
    half = Z / n * math.sqrt(gained + lost - (gained - lost) ** 2 / n)
    return centre - half, centre + half


def _normal(values: Tensor) -> tuple[float, float]:
    """Normal interval of a mean."""
    values = values.double()
    centre = float(values.mean())
    half = Z * float(values.std()) / math.sqrt(values.numel()) if values.numel() > 1 else math.inf
    return centre - half, centre + half


def judge_all(
    gates: Mapping[str, Gate], final: Mapping[str, Metric], at: Mapping[str, Mapping[str, Metric]]
) -> list[Verdict]:
    """Every gate's verdict; `at` holds the metrics after each step by its id.

    Raises:
        UsageError: when an evaluator did not give a metric that it may give.
    """
    return [
        judge(name, gate, _of(final, name), None if gate.against is None else _of(at[gate.against], name))
        for name, gate in gates.items()
    ]


def _of(metrics: Mapping[str, Metric], name: str) -> Metric:
    if name not in metrics:
        raise UsageError(
            f"the gate on {name!r} cannot be judged: its evaluator had nothing to measure it by",
            hint="look at the evaluator's options, such as what it compares with, or take the gate out",
        )
    return metrics[name]
