"""Every error that demiglace raises on purpose, as classes with data; text is made in one place.

A user's mistake becomes a `DemiglaceError` that carries one or more `Fault`: what is wrong, where,
and what to do. The command line prints them and exits with `exit_code`; nothing else prints errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

EXIT_OK = 0
EXIT_GATE_MISSED = 1
EXIT_USAGE = 2
EXIT_PASS_FAILED = 3
EXIT_INTERNAL = 4
EXIT_SIGNAL_BASE = 128


@dataclass(frozen=True)
class Place:
    """A span of characters on one line of a text that the user wrote."""

    #: File name as the user gave it, or a label such as `--set` for a command-line override.
    file: str
    #: Line, from 1.
    line: int
    #: Column in characters, from 1.
    column: int
    #: The whole source line, without its line ending.
    text: str = ""
    #: How many characters the caret underlines, at least 1.
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, for a person: what, where, and what to do about it."""

    message: str
    place: Place | None = None
    hint: str | None = None

    def at(self, place: Place | None) -> Fault:
        """The same fault with a place, unless it has one already."""
        return self if self.place is not None else replace(self, place=place)

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.message}" if self.place else self.message]
        if self.place is not None and self.place.text:
            lines += _underlined(self.place)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


_SHOWN = 100  # characters of a source line that an error shows


def _underlined(place: Place) -> list[str]:
    """The source line and a caret line, cut to a window when the line is long."""
    start = max(0, place.column - 1 - _SHOWN // 2) if place.column > _SHOWN else 0
    # A tab would move the caret: each is shown as one blank, so that columns stay columns.
    window = place.text[start : start + _SHOWN].replace("\t", " ")
    offset = place.column - 1 - start
    width = max(1, min(place.width, len(window) - offset))
    gutter = f"{place.line:5d} | "
    return [f"{gutter}{window}", f"{' ' * (len(gutter) - 2)}| {' ' * offset}{'^' * width}"]


class DemiglaceError(Exception):
    """Base of all errors that demiglace raises on purpose; carries one or more faults."""

    exit_code = EXIT_INTERNAL

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        place: Place | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        own = [] if message is None else [Fault(message, place, hint)]
        self.faults: tuple[Fault, ...] = (*own, *faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def within(self, part: str, place: Place | None = None) -> None:
        """Say of which part of a recipe this is, in the faults that have no place yet."""
        self.faults = tuple(
            fault
            if fault.place is not None
            else replace(fault, message=f"{part}: {fault.message}", place=place)
            for fault in self.faults
        )
        self.args = ("\n".join(str(fault) for fault in self.faults),)


class RecipeError(DemiglaceError):
    """The recipe's text, options, names, order or overrides are wrong; all faults of a stage at once."""

    exit_code = EXIT_USAGE


class UsageError(DemiglaceError):
    """A command line or a call from Python asks for what cannot be."""

    exit_code = EXIT_USAGE


class PluginError(DemiglaceError):
    """A plugin is broken, missing, blocked, or in conflict with another."""

    exit_code = EXIT_USAGE


class MissingExtra(UsageError):
    """Something asked for needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed",
            hint=f"pip install 'demiglace[{extra}]'",
        )


class SourceError(DemiglaceError):
    """A model or a data set cannot be had: absent files, another format, no network."""

    exit_code = EXIT_USAGE


class ArtifactError(DemiglaceError):
    """A saved model is damaged, of an unknown version, or does not fit the module it is loaded into."""

    exit_code = EXIT_USAGE


class GraphError(DemiglaceError):
    """A model cannot be traced, or an edit does not fit it."""

    exit_code = EXIT_PASS_FAILED


class VerificationError(GraphError):
    """An edit changed what the model computes in a way it must not; the model was put back."""


class PassFailed(DemiglaceError):
    """A pass raised, produced NaN or infinity, or changed nothing; names the pass and its plugin."""

    exit_code = EXIT_PASS_FAILED

    def __init__(
        self, message: str, *, step: str, plugin: str | None = None, hint: str | None = None
    ) -> None:
        self.step = step
        self.plugin = plugin
        origin = f" (from {plugin})" if plugin else ""
        super().__init__(f"step {step!r}{origin}: {message}", hint=hint)

    def within(self, part: str, place: Place | None = None) -> None:
        """Take the place; the step is named already."""
        self.faults = tuple(fault.at(place) for fault in self.faults)
        self.args = ("\n".join(str(fault) for fault in self.faults),)


class Diverged(DemiglaceError):
    """A loss, a weight or a validation figure became NaN or infinite; the last good weights are kept."""

    exit_code = EXIT_PASS_FAILED


class Interrupted(DemiglaceError):
    """The run was asked to stop by a signal and stopped between two training steps."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_code = EXIT_SIGNAL_BASE + signal_number
        super().__init__(f"stopped by signal {signal_number}")


@contextmanager
def told_of(part: str, place: Place | None = None) -> Iterator[None]:
    """Errors from within say of which part of a recipe they are, and where that stands.

    Args:
        part: such as `step 'prune'`; before each message that has no place yet.
        place: where that part was written, if it was.
    """
    try:
        yield
    except Interrupted:
        raise
    except DemiglaceError as error:
        error.within(part, place)
        raise
