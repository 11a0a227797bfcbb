"""The table at the end of a run, the gates' verdicts, and how to use the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.report.units import counted, data_size, percentage, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from demiglace.engine import Result
    from demiglace.engine.record import StepRecord
    from demiglace.measure import Footprint

SHOWN = ("accuracy", "loss")
"""Metrics that the table shows when they were measured; all others are in `run.json`."""


def print_summary(result: Result, console: Console) -> None:
    """Print what happened: a row a step, the totals, the gates, and three lines of Python."""
    console.print(_table(result))
    for line in _totals(result):
        console.print(line, highlight=False)
    for verdict in result.gates:
        console.print(str(verdict), style=None if verdict.passed else "bold red", highlight=False)
    if result.path is not None:
        console.print("\nUse the result:", highlight=False)
        for line in _usage(result):
            console.print(f"  {line}", highlight=False, soft_wrap=True)


def _table(result: Result) -> Table:
    from rich import box
    from rich.table import Table

    metrics = [name for name in SHOWN if any(name in step.metrics for step in result.steps)][:1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("step")
    table.add_column("pass")
    for name in [*metrics, "sparsity", "pruned layers", "parameters", "size", "MACs", "seconds"]:
        table.add_column(name, justify="right")
    for step in result.steps:
        table.add_row(step.id, step.use, *_cells(step, metrics))
    return table


def _cells(step: StepRecord, metrics: list[str]) -> Iterator[str]:
    for name in metrics:
        yield shown(step.metrics[name]) if name in step.metrics else "-"
    if step.after is not None:
        yield percentage(step.after.sparsity)
        yield percentage(step.after.sparsity_of_pruned)
        yield counted(step.after.parameters)
        yield data_size(step.after.bytes)
        yield counted(step.after.macs)
    yield f"{step.seconds:.1f}"


def _totals(result: Result) -> Iterator[str]:
    """Total before -> after."""
    before, after = result.record.original, result.steps[-1].after
    if before is None or after is None:
        return
    yield f"total: {_total('parameters', before, after)}, {_nonzero(before, after)}, {_total('size', before, after)}"


def _total(what: str, before: Footprint, after: Footprint) -> str:
    if what == "size":
        return f"{data_size(before.bytes)} -> {data_size(after.bytes)}"
    return f"{counted(before.parameters)} -> {counted(after.parameters)} parameters"


def _nonzero(before: Footprint, after: Footprint) -> str:
    return f"{counted(before.parameters - before.zeros)} -> {counted(after.parameters - after.zeros)} not zero"


def _usage(result: Result) -> Iterator[str]:
    yield "import demiglace"
    yield f"model = demiglace.load({str(result.path)!r})"
    yield "outputs = model(inputs)"
