"""When an editor acts during training, and how much it has done by then.

A moment of the training is written as a share of it (`0.7`), or as text: `"12 epochs"`, `"500 steps"`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from demiglace.errors import UsageError
from demiglace.passes.config import Config, Share

_EVERY, _EVERY_STEPS = 0.02, 20
"""The least time between two changes, unless told: as a share of the training, and in steps."""

_COUNTED = re.compile(r"(\d+(?:\.\d+)?) (epoch|step)s?")


def _moment(value: object) -> object:
    """Refuse what could be misread: a bare 1 may be a share, an epoch or a step."""
    if isinstance(value, int) and not isinstance(value, bool) and value != 0:
        raise ValueError(f'write {value}.0 for a share of the training, or "{value} epochs", "{value} steps"')
    if isinstance(value, str) and not _COUNTED.fullmatch(value):
        raise ValueError(f'{value!r} is no moment; write a share such as 0.5, "3 epochs" or "500 steps"')
    return value


Moment = Annotated[Share | str, BeforeValidator(_moment)]
"""A moment or a span of the training: a share of it (0 to 1), `"3 epochs"`, or `"500 steps"`."""


def moment_steps(moment: float | str, steps: int, steps_per_epoch: int) -> int:
    """A moment in optimizer steps.

    Args:
        moment: as written in a recipe.
        steps: the length of the whole training, in optimizer steps.
        steps_per_epoch: optimizer steps in one epoch.
    """
    counted = _COUNTED.fullmatch(moment) if isinstance(moment, str) else None
    if counted is None:
        return round(float(moment) * steps)
    return round(float(counted[1]) * (steps_per_epoch if counted[2] == "epoch" else 1))


def moment_within(moment: float | str, steps: int, steps_per_epoch: int, what: str) -> int:
    """Like `moment_steps`, for a moment that must come before the training ends.

    Args:
        moment: as written in a recipe.
        steps: the length of the whole training, in optimizer steps.
        steps_per_epoch: optimizer steps in one epoch.
        what: what happens at that moment, for the message.

    Raises:
        UsageError: when the training ends before.
    """
    at = moment_steps(moment, steps, steps_per_epoch)
    if at > steps:
        raise UsageError(
            f"{what} at {moment_words(moment)}, after the end of the training",
            hint="train longer, or give the moments as shares of the training, such as 0.7",
        )
    return at


def moment_unit(moment: float | str) -> str:
    """In what a moment is given: `epoch`, `step`, or the empty string for a share."""
    return _number_and_unit(moment)[1]


def moment_words(moment: float | str) -> str:
    """A moment for `demiglace plan`."""
    return moment if isinstance(moment, str) else f"{moment:.0%} of training"


class Schedule(Config):
    """How the amount of an editor grows while a model trains."""

    shape: Literal["cubic", "linear", "exponential", "one_shot"] = "cubic"
    """How the amount grows from `initial` to the editor's own: `cubic` removes much early and little late
    (Zhu & Gupta 2017, equation 1), `exponential` takes the same share of what remains each time,
    `one_shot` acts once, at `begin`."""
    begin: Moment = 0.0
    """When the editor acts first: a share of the training, `"3 epochs"`, or `"500 steps"`."""
    end: Moment = 0.7
    """When the full amount is reached; what follows is recovery."""
    every: Moment | None = None
    """The time between two changes. By default 2 % of the training, and at least 20 steps: to choose
    what goes costs as much as a part of a step, and training needs some steps to make up for it."""
    initial: Share = 0.0
    """The amount at `begin`."""

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Schedule:
        if self.shape != "one_shot" and _before(self.end, self.begin):
            raise ValueError(f"the schedule ends at {self.end} before it begins at {self.begin}")
        return self

    def words(self) -> str:
        if self.shape == "one_shot":
            return f"once, at {moment_words(self.begin)}"
        return (
            f"{self.shape} schedule from {self.initial:.0%} at {moment_words(self.begin)} "
            f"to the full amount at {moment_words(self.end)}, every {self._every_words()}"
        )

    def _every_words(self) -> str:
        if self.every is not None:
            return moment_words(self.every)
        return f"{moment_words(_EVERY)}, at least {_EVERY_STEPS} steps"

    def points(self, steps: int, steps_per_epoch: int) -> list[int]:
        """The steps, from 0 and ascending, before which the editor acts.

        Raises:
            UsageError: when the schedule ends before it begins, or would outlast the training.
        """
        begin = moment_steps(self.begin, steps, steps_per_epoch)
        if self.shape == "one_shot":
            moment_within(self.begin, steps, steps_per_epoch, "the schedule begins")
            return [min(begin, steps - 1)]
        end = moment_within(self.end, steps, steps_per_epoch, "the schedule ends")
        if end < begin:
            ends, begins = moment_words(self.end), moment_words(self.begin)
            raise UsageError(
                f"the schedule ends at {ends}, before it begins at {begins}",
                hint="move `end` behind `begin`",
            )
        least = _EVERY_STEPS if self.every is None else 1
        every = _EVERY if self.every is None else self.every
        between = max(least, moment_steps(every, steps, steps_per_epoch))
        last = min(end, steps - 1)
        return [*range(min(begin, last), last, between), last]

    def amount(self, point: int, points: list[int], full: float) -> float:
        """The amount at one of `points`, from 0 to 1, for an editor whose own amount is `full`."""
        first, last = points[0], points[-1]
        if point >= last:
            return full
        progress = (point - first) / (last - first)
        if self.shape == "cubic":
            return full + (self.initial - full) * (1 - progress) ** 3
        if self.shape == "linear":
            return full + (self.initial - full) * (1 - progress)
        return float(1 - (1 - self.initial) ** (1 - progress) * (1 - full) ** progress)

    def units(self) -> frozenset[str]:
        """In what its begin and end are given: `epoch`, `step`, or the empty string for shares."""
        return frozenset(map(moment_unit, (self.begin, self.end)))


def _before(moment: float | str, other: float | str) -> bool:
    """Whether one moment surely comes before another: only told of two in the same unit."""
    (number, unit), (other_number, other_unit) = _number_and_unit(moment), _number_and_unit(other)
    return unit == other_unit and number < other_number


def _number_and_unit(moment: float | str) -> tuple[float, str]:
    counted = _COUNTED.fullmatch(moment) if isinstance(moment, str) else None
    return (float(moment), "") if counted is None else (float(counted[1]), counted[2])
