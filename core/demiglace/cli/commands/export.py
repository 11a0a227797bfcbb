"""`demiglace export`: the model of a finished run in another format."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from demiglace.cli import options
from demiglace.cli.output import print_json


@click.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="FORMAT", help="onnx, openvino, packed, or what a plugin gives.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for the files.  [default: RUN/export]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the export, such as export.preprocess=true; may be repeated.",
)
@options.no_plugin
@options.allow_code
@options.as_json
@options.quiet
def command(
    path: Path,
    to: str,
    out: Path | None,
    overrides: Sequence[str],
    block: Sequence[str],
    code: Sequence[Path],
    as_json: bool,
    quiet: bool,
) -> None:
    """Export the model of RUN, a run directory, an artifact or a packed file.

    The file is compared with the PyTorch model on the data of the run's recipe.
    """
    from demiglace.cli.progress import progress
    from demiglace.engine.exporting import export_saved
    from demiglace.engine.signals import interruptible
    from demiglace.passes import allowing_code
    from demiglace.plugins import discover

    registry = discover(block)
    folder = (path if path.is_dir() else path.parent) / "export" if out is None else out
    with allowing_code(code), interruptible() as interrupt, progress(sys.stderr, quiet=quiet) as listener:
        done = export_saved(
            path,
            to,
            folder,
            registry,
            overrides=overrides,
            listener=listener,
            check_interrupt=interrupt.check,
        )
    if as_json:
        print_json(done)
    elif not quiet:
        click.echo("\n".join(f"wrote {file}" for file in done["files"]))
