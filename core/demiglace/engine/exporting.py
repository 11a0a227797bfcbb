"""Exporting the model of a finished run, as one more run of a recipe with that single pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.artifact.atomic import new_directory, writing
from demiglace.artifact.manifest import read_info
from demiglace.artifact.packed import unpack
from demiglace.engine.folder import MODEL
from demiglace.engine.plan import plan
from demiglace.engine.run import Execution
from demiglace.errors import UsageError
from demiglace.passes import Kind
from demiglace.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from demiglace.engine.events import Listener
    from demiglace.plugins import Registry

_FAMILY = "export."
_STEP = "export"


def formats(registry: Registry) -> list[str]:
    """What a model can be exported to."""
    exporters = [name for name, spec in registry.passes.items() if spec.kind is Kind.EXPORTER]
    return [name.removeprefix(_FAMILY) for name in exporters]


def export_saved(
    path: Path,
    to: str,
    out: Path,
    registry: Registry,
    *,
    overrides: Sequence[str] = (),
    listener: Listener,
    check_interrupt: Callable[[], None],
) -> dict[str, Any]:
    """Export a saved model, compared on the data of its recipe; the exporter's figures and the files.

    Args:
        path: a run directory, an artifact or a packed file.
        to: a format, one of `formats`.
        out: the folder that gets the files; made if it is not there.
        registry: the plugins.
        overrides: `export.option=value` each, and what else a recipe lets one set.
        listener: hears of progress and warnings.
        check_interrupt: may raise to stop.

    Raises:
        UsageError: there is no such format, or a file is there already.
        DemiglaceError: as the model's artifact, the recipe's data and the exporter raise them.
    """
    if to not in formats(registry):
        raise UsageError(f"there is no export to {to!r}", hint=f"there are {', '.join(formats(registry))}")
    made = _provenance(path)
    recipe = load_recipe(_recipe(path, to, made), overrides=overrides, find=registry.recipe)
    planned = plan(recipe, registry)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with new_directory(out / to, keep=False) as work:
            # A file tells what made the model, not where it lay when it was exported.
            execution = Execution(
                planned, listener, check_interrupt, out=work / "run", provenance=made or None
            )
            step = execution.run().steps[0]
            files = sorted((work / "run" / "steps" / f"01-{_STEP}").iterdir())
            _refuse_existing(out, files)
            for file in files:
                os.replace(file, out / file.name)
    return {**step.figures, "files": [str(out / file.name) for file in files], "warnings": step.warnings}


def _provenance(path: Path) -> Mapping[str, Any]:
    """What a saved model says of the run that made it."""
    folder = path / MODEL if (path / MODEL).is_dir() else path
    return (unpack(path).info if path.is_file() else read_info(folder)).provenance


def _recipe(path: Path, to: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that opens the model, on the data of the recipe that made it."""
    made: Mapping[str, Any] = provenance.get("recipe") or {}
    kept = {key: made[key] for key in ("seed", "data") if made.get(key) is not None}
    return {
        "name": f"{made.get('name', 'model')}-{to}",
        **kept,
        "model": {"use": "artifact", "path": str(path)},
        "pass": [{"id": _STEP, "use": f"{_FAMILY}{to}"}],
    }


def _refuse_existing(out: Path, files: Sequence[Path]) -> None:
    for file in files:
        if (out / file.name).exists():
            raise UsageError(f"{out / file.name} exists", hint="give another --out, or remove it")
