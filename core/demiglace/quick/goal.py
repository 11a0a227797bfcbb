"""What `--goal` says: `4x smaller, <= 1 point`.

    goal  = bound { "," bound }
    bound = NUMBER "x smaller" | NUMBER "x faster" | NUMBER "x fewer macs"
          | [ "<=" ] NUMBER ( "point" | "points" )

Blanks and case do not count, and each kind of bound may stand once. Points are of accuracy, in percent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from demiglace.errors import Fault, Place, UsageError

LABEL = "--goal"
"""What stands for the file name in the places of faults."""

MOST = 1000.0
"""The largest factor."""

_BOUND = re.compile(r"(?P<le><=)?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<x>[x×])?\s*(?P<what>.*)", re.IGNORECASE)
_FACTORS = {"smaller": "smaller", "faster": "faster", "fewer macs": "fewer_macs"}
_POINTS = {"point": "points", "points": "points"}
_EXAMPLE = 'write it like "4x smaller, 2x faster, 2x fewer macs, <= 1 point"'


@dataclass(frozen=True)
class Goal:
    """What to reach, and what it may cost at most."""

    #: By which factor the bytes of the tensors shall shrink.
    smaller: float | None = None
    #: By which factor the multiply-accumulates shall shrink.
    fewer_macs: float | None = None
    #: How many points of accuracy may be lost.
    points: float | None = None
    #: How many times as fast as the model as it came, in eager float32, a call of one example shall be.
    faster: float | None = None

    def __str__(self) -> str:
        return ", ".join(_words(name, value) for name, value in vars(self).items() if value is not None)


def _words(name: str, value: float) -> str:
    if name == "points":
        return f"<= {value:g} {'point' if value == 1 else 'points'}"
    return f"{value:g}x {name.replace('_', ' ')}"


def parse_goal(text: str) -> Goal:
    """The goal that a text states.

    Raises:
        UsageError: with every fault of it, each at its place.
    """
    found: dict[str, float] = {}
    faults: list[Fault] = []
    for start, part in _parts(text):
        name, value = _bound(part)
        if isinstance(value, Fault):
            faults.append(value.at(_place(text, start, part)))
        elif name in found:
            faults.append(Fault(f"{part!r} says a second time what is bound", _place(text, start, part)))
        else:
            found[name] = value
    if not faults and not set(_FACTORS.values()) & set(found):
        faults.append(
            Fault("the goal says what may be lost, not what to reach", _place(text, 0, text), _EXAMPLE)
        )
    if faults:
        raise UsageError(faults=faults)
    return Goal(**found)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The bounds between commas without the blanks around them, and where each begins."""
    start = 0
    for part in text.split(","):
        yield start + len(part) - len(part.lstrip()), part.strip()
        start += len(part) + 1


def _place(text: str, start: int, part: str) -> Place:
    shown = text.replace("\n", " ")
    return Place(LABEL, 1, min(start, max(0, len(shown) - 1)) + 1, shown, max(1, len(part)))


def _bound(part: str) -> tuple[str, float | Fault]:
    """Which bound a part is, and its number or what is wrong with it."""
    if not part:
        return "", Fault("a bound is missing here", hint=_EXAMPLE)
    match = _BOUND.fullmatch(part)
    if match is None:
        return "", Fault(f"{part!r} is no bound", hint=_EXAMPLE)
    what, number = " ".join(match["what"].lower().split()), float(match["number"])
    if match["x"] and not match["le"] and what in _FACTORS:
        return _FACTORS[what], number if 1 < number <= MOST else _out_of_range(part)
    if not match["x"] and what in _POINTS:
        within = number <= 100
        return "points", number if within else Fault(f"{part!r}: there are 100 points to lose")
    return "", Fault(f"{part!r} is no bound", hint=_EXAMPLE)


def _out_of_range(part: str) -> Fault:
    return Fault(f"{part!r}: the factor must be above 1 and at most {MOST:g}")
