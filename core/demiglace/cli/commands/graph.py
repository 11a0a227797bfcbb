"""`demiglace graph`: what can be removed from a recipe's network, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json, table

if TYPE_CHECKING:
    from demiglace.engine.anatomy import Anatomy, Limb, Part
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe

_ROLES = {"produced": "made by", "consumed": "read by", "tied": "with"}
_SHOWN = 3
"""Layers of a role that the table names; JSON names all."""


@click.command()
@options.of_recipe
def command(recipe: Recipe, registry: Registry, as_json: bool, quiet: bool) -> None:
    """List what can be removed from RECIPE's network, a path or recipe:NAME, and what cannot and why.

    Builds the network without its weights and traces it. A group is one line: its units go one by one, each
    with all that is tied to it. A residual branch goes as a whole.
    """
    from dataclasses import asdict

    from demiglace.engine.anatomy import anatomy

    found = anatomy(recipe, registry)
    if as_json:
        print_json(asdict(found))
    elif not quiet:
        click.echo("\n".join(_lines(found)))


def _lines(found: Anatomy) -> Iterator[str]:
    units = sum(group.units for group in found.groups)
    groups = "1 group" if len(found.groups) == 1 else f"{len(found.groups)} groups"
    yield f"{found.name}: {groups} of {units:,} units, {found.parameters:,} parameters"
    if found.groups:
        header = ("GROUP", "KIND", "UNITS", "PARAMETERS", "LAYERS")
        yield "\n" + table(header, [_row(group) for group in found.groups])
    if found.frozen:
        rows = [(one.tensor, str(one.dim), one.reason) for one in found.frozen]
        yield "\n" + table(("LEFT ALONE", "DIM", "WHY"), rows)
    if found.branches:
        yield "\n" + table(("BRANCH", "PARAMETERS", "LAYERS"), [_branch(one) for one in found.branches])


def _row(group: Part) -> tuple[str, ...]:
    layers = "; ".join(
        f"{words} {_some(group.layers[role])}" for role, words in _ROLES.items() if group.layers[role]
    )
    return group.name, group.kind, str(group.units), f"{group.parameters:,}", layers


def _branch(branch: Limb) -> tuple[str, str, str]:
    if branch.reason:
        return branch.name, "-", f"left alone: {branch.reason}"
    return branch.name, f"{branch.parameters:,}", _some(branch.layers)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
