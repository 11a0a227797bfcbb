"""Progress of a run on stderr: a bar with the time left on a terminal, else a line a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from demiglace.engine.events import Listener

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from demiglace.engine.record import StepRecord

_PAUSE = 10.0  # seconds between two plain lines of one step


@contextmanager
def progress(stream: TextIO, *, quiet: bool = False) -> Iterator[Listener]:
    """A listener that tells on `stream` what happens, for as long as the block runs."""
    if quiet:
        yield Listener()
    elif stream.isatty():
        with _bars(stream) as bars:
            yield BarListener(bars)
    else:
        yield LineListener(stream)


class LineListener(Listener):
    """Occasional plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._said = time.monotonic()

    def step_started(self, step: str, index: int, total: int) -> None:
        self._say(f"[{index}/{total}] {step}")

    def progress(self, step: str, done: int, total: int | None, text: str) -> None:
        if time.monotonic() - self._said >= _PAUSE:
            self._say(f"  {step}: {text} {done}{f'/{total}' if total else ''}")

    def warning(self, step: str, text: str) -> None:
        self._say(f"warning: {step}: {text}")

    def step_finished(self, step: str, record: StepRecord) -> None:
        self._say(f"  {step}: {record.seconds:.1f} s")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        print(text, file=self.stream, flush=True)


class BarListener(Listener):
    """A bar for the step at work; finished steps stay as lines above it."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self._task: TaskID | None = None

    def step_started(self, step: str, index: int, total: int) -> None:
        self._task = self.bars.add_task(f"[{index}/{total}] {step}", total=None, text="")

    def progress(self, step: str, done: int, total: int | None, text: str) -> None:
        if self._task is not None:
            self.bars.update(self._task, completed=done, total=total, text=text)

    def warning(self, step: str, text: str) -> None:
        self.bars.console.print(f"warning: {step}: {text}", style="yellow", markup=False, highlight=False)

    def step_finished(self, step: str, record: StepRecord) -> None:
        if self._task is not None:
            self.bars.remove_task(self._task)
            self._task = None
        self.bars.console.print(f"{step}: {record.seconds:.1f} s", markup=False, highlight=False)


def _bars(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
    )
