"""`demiglace inspect`: what a saved model's tensors take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json, table

if TYPE_CHECKING:
    from demiglace.artifact.inspection import Inspection, TensorReport


@click.command()
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@options.as_json
def command(path: Path, as_json: bool) -> None:
    """Say what each tensor of PATH takes, and how: a packed file, an artifact or a run directory."""
    from demiglace.artifact.inspection import inspect
    from demiglace.engine.folder import MODEL
    from demiglace.plugins import discover, structures

    place = path / MODEL if (path / MODEL).is_dir() else path
    found = inspect(place, resolve=structures(discover()))
    if as_json:
        print_json(found.to_json())
        return
    header = ("TENSOR", "SHAPE", "DTYPE", "ZERO", "KEPT", "BYTES", "BITS", "ENTROPY", "CODED")
    click.echo(table(header, [_row(one) for one in found.tensors]))
    click.echo("\n".join(_summary(found)))


def _row(one: TensorReport) -> tuple[str, ...]:
    return (
        one.name,
        "x".join(map(str, one.shape)) or "-",
        one.dtype,
        f"{one.sparsity:.1%}",
        "-" if one.kept is None else f"{one.kept:.1%}",
        f"{one.bytes:,}",
        f"{one.bits_per_element:.3f}",
        f"{one.entropy:.3f}",
        one.encoding,
    )


def _summary(found: Inspection) -> Iterator[str]:
    cut = "" if found.original_weights == found.weights else f", of {found.original_weights:,} at first"
    yield f"\n{found.bytes:,} bytes in all for {found.weights:,} weights{cut}"
    yield "smaller than " + ", ".join(f"{name} {ratio:.2f} x" for name, ratio in found.ratios().items())
    recipe = found.info.provenance.get("recipe")
    if recipe:
        yield f"recipe: {json.dumps(recipe, ensure_ascii=False)}"
