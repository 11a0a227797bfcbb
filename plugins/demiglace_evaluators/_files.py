"""A model as files that another runtime or another process opens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from demiglace.errors import PluginError, UsageError

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for exported files, gone in the end."""
    folder = Path(mkdtemp(prefix="demiglace-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exported(runtime: str, model: ModelGraph, context: Context, folder: Path) -> Path:
    """The file that the runtime's exporter makes of a model, in a folder made here."""
    from demiglace.plugins import discover

    registry = discover()
    spec = registry.passes.get(registry.runtimes[runtime].exporter)
    if spec is None:
        raise PluginError(f"the runtime {runtime!r} names no exporter that is installed")
    folder.mkdir()
    apart = replace(context, figures={}, notes=[], left_alone={}, folder=folder)
    written = registry.implementation(spec)(spec.config()).write(model, folder, apart)
    return folder / str(written["file"])


def saved(model: ModelGraph, folder: Path) -> Path:
    """A model as an artifact that opens in another process.

    Raises:
        UsageError: when only the caller's own class could build it.
        GraphError: when its structure is known from itself alone, and it cannot be traced.
    """
    from demiglace.artifact import CallerOrigin, GraphOrigin, save
    from demiglace.graph import ModelGraph
    from demiglace.graph.plain import lower, portable

    if model.origin is None:
        save(ModelGraph(lower(model)), folder, origin=GraphOrigin())
        return folder
    graph = portable(model)
    if isinstance(model.origin, CallerOrigin) and graph is None:
        raise UsageError(
            f"another process cannot build a {type(model.module).__name__}, and it cannot be traced",
            hint='name what makes it: [model] use = "python"',
        )
    save(model, folder, origin=model.origin, graph=graph)
    return folder
