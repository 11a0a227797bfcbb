"""What a run tells those who watch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demiglace.engine.record import StepRecord


class Listener:
    """Hears what happens in a run; every method does nothing unless overridden."""

    def step_started(self, step: str, index: int, total: int) -> None:
        """A step begins; `index` counts from 1."""

    def progress(self, step: str, done: int, total: int | None, text: str) -> None:
        """`done` of `total` units of work (`None`: unknown) are finished."""

    def warning(self, step: str, text: str) -> None:
        """Something that the user should know."""

    def step_finished(self, step: str, record: StepRecord) -> None:
        """A step is done and measured."""
