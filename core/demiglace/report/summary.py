"""The table at the end of a run, the gates' verdicts, and how to use the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.report.units import counted, data_size, percentage, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from demiglace.engine.record import StepRecord
    from demiglace.engine.result import Result
    from demiglace.measure import Footprint

SHOWN = ("accuracy", "loss")
"""Metrics that the table shows when they were measured; all others are in `run.json`."""

_LISTED = 3  # layers left alone that the summary names


def print_summary(result: Result, console: Console) -> None:
    """Print what happened: a row a step, the totals, the gates, and three lines of Python."""
    console.print(_table(result))
    for line in _totals(result):
        console.print(line, highlight=False)
    for line in _notes(result):
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
    # Narrow enough for 80 columns, whatever the steps are called.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("step", no_wrap=True)
    for name in [*metrics, "sparsity", "pruned\nlayers", "param-\neters", "size", "MACs", "seconds"]:
        table.add_column(name, justify="right", no_wrap=True)
    for step in result.steps:
        table.add_row(step.id, *_cells(step, metrics))
        if step.control:
            table.add_row(
                "  control", *(shown(step.control[name]) for name in metrics if name in step.control)
            )
    return table


def _cells(step: StepRecord, metrics: list[str]) -> Iterator[str]:
    for name in metrics:
        yield shown(step.metrics[name]) if name in step.metrics else "-"
    if step.after is not None:
        yield percentage(step.after.sparsity)
        yield percentage(step.after.over(step.after.pruned).sparsity) if step.after.pruned else "-"
        yield counted(step.after.parameters)
        yield data_size(step.after.bytes)
        yield counted(step.after.macs)
    yield f"{step.seconds:.1f}"


def _totals(result: Result) -> Iterator[str]:
    """Each total, before -> after."""
    before, after = result.record.original, result.steps[-1].after
    if before is None or after is None:
        return
    yield f"parameters  {counted(before.parameters)} -> {counted(after.parameters)}"
    yield f"not zero    {counted(_nonzero(before))} -> {counted(_nonzero(after))}"
    yield f"size        {data_size(before.bytes)} -> {data_size(after.bytes)}"
    if before.macs and after.macs:
        yield f"MACs        {counted(before.macs)} -> {counted(after.macs)}"


def _notes(result: Result) -> Iterator[str]:
    """How each structural step was proven, what each step has to say, and what it left alone."""
    for step in result.steps:
        if step.verified is not None:
            said = f"{step.id}: verified ({step.verified['equality']}, error {step.verified['error']:.0e})"
            yield said + (f"; in graph form, {step.verified['reason']}" if step.verified["reason"] else "")
        yield from (f"{step.id}: {note}" for note in step.notes)
        if step.left_alone:
            reasons = [f"{name} ({reason})" for name, reason in step.left_alone.items()]
            more = f" and {len(reasons) - _LISTED} more, in run.json" if len(reasons) > _LISTED else ""
            yield f"{step.id}: left alone {', '.join(reasons[:_LISTED])}{more}"


def _nonzero(footprint: Footprint) -> int:
    return footprint.parameters - footprint.zeros


def _usage(result: Result) -> Iterator[str]:
    yield "import demiglace"
    allowed = f", allow_code={[str(path) for path in result.code]}" if result.code else ""
    yield f"model = demiglace.load({str(result.path)!r}{allowed})"
    yield "outputs = model(inputs)"
