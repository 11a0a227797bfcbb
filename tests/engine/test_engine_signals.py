"""Signals stop a run between two steps, and the handlers of before come back."""

from __future__ import annotations

import os
import signal

import pytest

from demiglace.engine.signals import interruptible
from demiglace.errors import Interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_remembered_and_raised_at_the_next_check(number):
    before = signal.getsignal(number)
    with interruptible() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as caught:
            interrupt.check()
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
