"""Timing several functions in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

_BLOCK = 5e-4  # seconds that one reading lasts at least: shorter than what a scheduler gives to others
_LEAST = 5  # rounds
_WARM_UP = 3  # calls


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    #: The quartiles of the readings.
    low: float
    high: float
    #: The least reading: other work on the machine only ever adds to one.
    fastest: float
    #: Readings; each is the mean of `calls` calls.
    rounds: int
    calls: int


def in_turn(
    functions: Mapping[K, Callable[[], object]],
    *,
    rounds: int,
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> dict[K, Timing]:
    """The time of a call of each function.

    In each round every function is read once, as the mean of as many calls as take half a millisecond.

    Args:
        functions: by whatever names them.
        rounds: the most rounds.
        seconds: for all rounds together; five rounds are always made.
        check: called between two readings; may raise to stop.
    """
    once = {name: _warmed(function) for name, function in functions.items()}
    calls = {name: max(1, math.ceil(_BLOCK / spent)) for name, spent in once.items()}
    a_round = sum(once[name] * calls[name] for name in functions)
    made = max(_LEAST, min(rounds, int(seconds / a_round)))
    readings: dict[K, list[float]] = {name: [] for name in functions}
    for _ in range(made):
        for name, function in functions.items():
            check()
            readings[name].append(_read(function, calls[name]))
    return {name: _timing(found, calls[name]) for name, found in readings.items()}


def _warmed(function: Callable[[], object]) -> float:
    """The time of one call, after some that compile, allocate and fill caches."""
    for _ in range(_WARM_UP):
        function()
    return max(_read(function, 1), 1e-9)


def _read(function: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def _timing(readings: list[float], calls: int) -> Timing:
    low, median, high = statistics.quantiles(readings, n=4, method="inclusive")
    return Timing(median, low, high, min(readings), len(readings), calls)
