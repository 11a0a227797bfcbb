import io
from types import SimpleNamespace

from rich.console import Console
from rich.progress import Progress

from demiglace.cli import progress as module
from demiglace.cli.progress import BarListener, LineListener, progress

RECORD = SimpleNamespace(seconds=1.25)


def told(listener):
    listener.step_started("dense", 1, 2)
    listener.progress("dense", 5, 10, "epoch 1")
    listener.warning("dense", "look [out]")
    listener.step_finished("dense", RECORD)


def test_a_pipe_gets_plain_lines_and_not_one_a_batch():
    stream = io.StringIO()
    with progress(stream) as listener:
        told(listener)
    assert stream.getvalue().splitlines() == ["[1/2] dense", "warning: dense: look [out]", "  dense: 1.2 s"]


def test_a_long_step_says_now_and_then_how_far_it_is(monkeypatch):
    stream, clock = io.StringIO(), iter(range(0, 1000, 6))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    listener = LineListener(stream)
    for done in range(6):
        listener.progress("dense", done, 10, "epoch 1")
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) < 6
    assert lines[0].startswith("  dense: epoch 1 ")
    assert lines[0].endswith("/10")


def test_quiet_says_nothing():
    stream = io.StringIO()
    with progress(stream, quiet=True) as listener:
        told(listener)
    assert stream.getvalue() == ""


def test_a_terminal_shows_step_warning_and_text_as_they_are():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, no_color=True)
    with Progress(console=console) as bars:
        told(BarListener(bars))
    assert "look [out]" in stream.getvalue()
    assert "[1/2] dense" in stream.getvalue()


def test_progress_of_an_evaluation_between_steps_is_no_error():
    with Progress(console=Console(file=io.StringIO())) as bars:
        BarListener(bars).progress("evaluate", 1, None, "test")
