"""The `[model]` and `[data]` tables that two words on the command line stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demiglace.errors import UsageError
from demiglace.passes import SourceSpec
from demiglace.plugins import Registry
from demiglace.recipe import did_you_mean

Table = dict[str, Any]


def model_table(text: str, registry: Registry) -> Table:
    """`[model]` of `FILE.py:FACTORY`, `SOURCE`, `SOURCE:VALUE`, or the path of a saved model.

    Raises:
        UsageError: when it is none of them.
    """
    file, colon, factory = text.rpartition(":")
    if colon and file.endswith(".py"):
        return {"use": "python", "path": file, "factory": factory}
    if text.endswith(".py"):
        raise UsageError(
            f"{text} is a Python file", hint=f"say which function makes the model: {text}:make_net"
        )
    table = _source(text, registry.model_sources)
    if table is None and Path(text).exists():
        table = {"use": "artifact", "path": text}
    return _known(table, text, "model", registry.model_sources)


def data_table(text: str, registry: Registry) -> Table:
    """`[data]` of `SOURCE`, `SOURCE:VALUE`, an `.npz` file, or a folder of images.

    Raises:
        UsageError: when it is none of them.
    """
    table = _source(text, registry.data_sources)
    path = Path(text)
    if table is None and path.suffix == ".npz":
        table = {"use": "npz", "path": text}
    if table is None and path.is_dir():
        table = {"use": "folder", "path": text}
    return _known(table, text, "data", registry.data_sources)


def _known(table: Table | None, text: str, what: str, sources: Mapping[str, SourceSpec]) -> Table:
    if table is None:
        hint = did_you_mean(text.partition(":")[0], sources, "sources")
        raise UsageError(f"{text!r} is neither a source of {what} nor a file that is there", hint=hint)
    return table


def _source(text: str, sources: Mapping[str, SourceSpec]) -> Table | None:
    """The table of a source by name; what follows a colon is the first option that it must have, or may."""
    name, colon, value = text.partition(":")
    spec = sources.get(name)
    if spec is None:
        return None
    table: Table = {"use": name}
    if colon:
        options = spec.config.model_fields
        required = (option for option, about in options.items() if about.is_required())
        table[next(required, next(iter(options)))] = _value(value)
    return table


def _value(text: str) -> object:
    """A TOML value; text where it is none."""
    import tomli

    try:
        return tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text
