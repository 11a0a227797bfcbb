"""Text on a terminal: colour where it is wanted, tables, JSON."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

import click


def painted(text: str, color: str, stream: TextIO) -> str:
    """The text in bold and in a colour, if the stream is a terminal and NO_COLOR is not set."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg=color, bold=True) if wanted else text


def print_json(value: object) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header in columns, the last one wrapped to the terminal's width."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    left = sum(widths) + 2 * len(widths)
    room = max(30, shutil.get_terminal_size().columns - left)
    return "\n".join(_row(row, widths, left, room) for row in cells)


def _row(row: Sequence[str], widths: Sequence[int], left: int, room: int) -> str:
    start = "".join(f"{text:<{width}}  " for text, width in zip(row, widths, strict=False))
    wrapped = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
    return ("\n" + " " * left).join([(start + wrapped[0]).rstrip(), *wrapped[1:]])
