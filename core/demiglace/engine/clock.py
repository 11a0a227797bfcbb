"""Telling the engine's own processor time from that of the passes and sources that it calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Span:
    """Seconds of one stretch of work, known when it is over."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Clock:
    """Runs from its making; adds up what is spent in others' code."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()
        self._others = 0.0

    @contextmanager
    def others(self) -> Iterator[Span]:
        """Count what happens inside as the time of a pass, an evaluator or a source; these never nest."""
        span = Span()
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield span
        finally:
            span.seconds = time.perf_counter() - started
            span.cpu_seconds = time.process_time() - cpu
            self._others += span.cpu_seconds

    def total(self) -> Span:
        """Everything since the clock was made."""
        return Span(time.perf_counter() - self._started, time.process_time() - self._cpu)

    def own(self) -> float:
        """Processor seconds of the engine itself."""
        return self.total().cpu_seconds - self._others
