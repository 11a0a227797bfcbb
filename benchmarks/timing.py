"""Processor time: of whole commands, ratios of pairs run in turn, and of calls read in turn."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def cpu_seconds(command: Sequence[str]) -> float:
    """User and system seconds of one run of a command, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def paired(command: Sequence[str], other: Sequence[str], runs: int = 5) -> tuple[float, float, float]:
    """Median seconds of both commands and the median of their ratio, run in turn after one warm-up each."""
    cpu_seconds(command)
    cpu_seconds(other)
    pairs = [(cpu_seconds(command), cpu_seconds(other)) for _ in range(runs)]
    ratio = statistics.median(one / two for one, two in pairs)
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs), ratio


def python(code: str) -> list[str]:
    """The command that runs a line of Python in this interpreter."""
    return [sys.executable, "-c", code]


def fastest(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    block: float,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Seconds of a call of each, by the fastest of some readings that last `block` seconds each."""
    once = {name: min(spent(call, 1, clock) for _ in range(3)) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(spent(call, max(1, round(block / once[name])), clock))
    return {name: min(readings) for name, readings in found.items()}


def spent(call: Callable[[], Any], times: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of one call by a clock, of the processor unless told, as the mean of several."""
    started = clock()
    for _ in range(times):
        call()
    return (clock() - started) / times
