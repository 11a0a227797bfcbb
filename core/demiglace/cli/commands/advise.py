"""`demiglace advise`: which formats run fast on this machine, and what to install."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json, table

if TYPE_CHECKING:
    from demiglace.advice import Advice
    from demiglace.machine import Processor
    from demiglace.plugins import Registry

_PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "openvino")


@click.command()
@click.argument("recipe", metavar="[RECIPE]", required=False)
@options.overrides
@options.no_plugin
@options.as_json
def command(recipe: str | None, overrides: Sequence[str], block: Sequence[str], as_json: bool) -> None:
    """Say which formats will run fast on this machine, and what to install for the others.

    Looks at the processor, the C++ compiler and the installed packages, and loads none of them. With RECIPE,
    a path or recipe:NAME, also what its steps lack here.
    """
    from demiglace.advice import as_rows, format_advice
    from demiglace.machine import compiler, processor, version
    from demiglace.plugins import discover

    registry, machine, found = discover(block), processor(), compiler()
    formats = list(format_advice(machine, found, registry))
    steps = None if recipe is None else _of(recipe, overrides, machine, found, registry)
    packages = {name: version(name) for name in _PACKAGES}
    if as_json:
        told: dict[str, object] = {"processor": asdict(machine) | {"features": sorted(machine.features)}}
        told |= {"compiler": found, "packages": packages, "formats": [asdict(one) for one in formats]}
        print_json(told | ({} if steps is None else {"recipe": [asdict(one) for one in steps]}))
        return
    click.echo(f"{machine.name}, {machine.architecture}, {machine.cores} cores")
    click.echo(f"has {', '.join(sorted(machine.features)) or 'no instructions that are known here'}\n")
    click.echo(table(("FORMAT", "STATE", "WHY"), as_rows(formats)))
    if steps is not None:
        click.echo(f"\n{recipe}: " + ("" if steps else "nothing is missing here"))
    if steps:
        click.echo(table(("STEP", "STATE", "WHY"), as_rows(steps)))


def _of(
    recipe: str, overrides: Sequence[str], machine: Processor, compiler: str | None, registry: Registry
) -> list[Advice]:
    """What a recipe's steps lack here."""
    from demiglace.advice import recipe_advice
    from demiglace.engine.check import check
    from demiglace.recipe import load_recipe

    checked = check(load_recipe(recipe, overrides=overrides, find=registry.recipe), registry)
    return list(recipe_advice(checked, machine, compiler, registry))
