"""The one place where errors become text on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

import click

from demiglace.cli.group import cli
from demiglace.cli.output import painted, print_json
from demiglace.errors import (
    EXIT_INTERNAL,
    EXIT_SIGNAL_BASE,
    EXIT_USAGE,
    DemiglaceError,
    Fault,
    Interrupted,
    PassFailed,
    PluginError,
)


def guarded(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and render whatever goes wrong; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a character shows a question mark instead of failing the run.
            stream.reconfigure(errors="replace")
    as_json = "--json" in given
    try:
        return _invoked(given)
    except click.ClickException as error:
        return _report([_usage_fault(error)], EXIT_USAGE, as_json)
    except DemiglaceError as error:
        if isinstance(error, PassFailed | PluginError):
            _show_cause(error)
        return _report(error.faults, error.exit_code, as_json)
    except (KeyboardInterrupt, click.Abort):
        stopped = Interrupted(signal.SIGINT)
        return _report(stopped.faults, stopped.exit_code, as_json)
    except BrokenPipeError:
        # Whoever read our output is gone: nothing can be said, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SIGNAL_BASE + signal.SIGPIPE
    except Exception as error:
        traceback.print_exc()
        hint = "this is a fault of demiglace: please report it with the lines above and `demiglace --version`"
        return _report([Fault(f"{type(error).__name__}: {error}", hint=hint)], EXIT_INTERNAL, as_json)


def _invoked(arguments: list[str]) -> int:
    try:
        with cli.make_context("demiglace", arguments) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as end:
        code = end.exit_code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _usage_fault(error: click.ClickException) -> Fault:
    context = getattr(error, "ctx", None)
    hint = f"`{context.command_path} --help` lists what it takes" if context is not None else None
    return Fault(error.format_message(), hint=hint)


def _show_cause(error: DemiglaceError) -> None:
    """The traceback of foreign code that raised: its author needs it. A missing package is no mystery."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, DemiglaceError | ModuleNotFoundError):
        traceback.print_exception(cause)


def _report(faults: Sequence[Fault], code: int, as_json: bool) -> int:
    label = painted("error:", "red", sys.stderr)
    for fault in faults:
        click.echo(f"{label} {fault}", err=True)
    if as_json:
        print_json({"errors": [_fault_json(fault) for fault in faults]})
    return code


def _fault_json(fault: Fault) -> dict[str, object]:
    place = fault.place
    where = None if place is None else {"file": place.file, "line": place.line, "column": place.column}
    return {"message": fault.message, "hint": fault.hint, "place": where}
