"""Stopping a run from outside: SIGINT, SIGTERM and SIGHUP end it between two training steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from demiglace.errors import Interrupted

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupt:
    """Remembers the first signal; the second one of the same kind acts as if nobody listened."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Catch the stopping signals for the time of a run; only from a program's main thread."""
    interrupt = Interrupt()
    before = {number: signal.signal(number, interrupt._receive) for number in STOPPING}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
