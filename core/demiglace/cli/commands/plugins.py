"""`demiglace plugins`: what is installed, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json, table

if TYPE_CHECKING:
    from demiglace.plugins import PluginInfo

_KINDS = ("passes", "sources", "recipes", "criteria", "rules", "roundings", "runtimes")


@click.command()
@options.no_plugin
@options.as_json
def command(block: Sequence[str], as_json: bool) -> None:
    """List the installed plugins: distribution, version, status, what they give, what is wrong."""
    from dataclasses import asdict

    from demiglace.plugins import discover

    found = discover(block).plugins
    if as_json:
        print_json([asdict(plugin) for plugin in found])
        return
    header = ("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "GIVES")
    click.echo(table(header, [_row(plugin) for plugin in found]))
    for plugin in found:
        if plugin.error:
            click.echo(f"\n{plugin} is {plugin.status}: {plugin.error}")


def _row(plugin: PluginInfo) -> tuple[str, ...]:
    kinds = {kind: getattr(plugin, kind) for kind in _KINDS}
    gives = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    return plugin.name, plugin.distribution, plugin.version, plugin.status, gives or "-"
