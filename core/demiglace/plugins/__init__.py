"""Plugins: how passes, sources and recipes get a name.

A plugin is a module that an installed distribution names in the entry-point group `demiglace`. It
announces what it gives by the hooks of `demiglace.plugins.hooks`. A whole plugin, in two files:

    # pyproject.toml
    [project.entry-points.demiglace]
    acme = "acme_passes"

    # acme_passes/__init__.py
    import demiglace
    from demiglace.passes import Config, Kind, PassSpec, Share

    class RoundConfig(Config):
        '''Round weights to a grid.'''

        step: Share = 0.01
        '''The distance of two grid points.'''

    @demiglace.hookimpl
    def demiglace_passes():
        return [PassSpec("acme.round", Kind.EDITOR, RoundConfig, "acme_passes.round:Round")]

`acme_passes/round.py` holds the class `Round`; it may import torch, because it is imported only when a
recipe runs it. `demiglace plugins` lists what was found, and what is broken and why.
"""

from __future__ import annotations

from demiglace.plugins.discovery import BLOCK_VARIABLE, discover
from demiglace.plugins.hooks import hookimpl
from demiglace.plugins.info import PluginInfo, Status
from demiglace.plugins.registry import Names, Registry
from demiglace.plugins.requirements import requirement_faults
from demiglace.plugins.structures import structures

__all__ = [
    "BLOCK_VARIABLE",
    "Names",
    "PluginInfo",
    "Registry",
    "Status",
    "discover",
    "hookimpl",
    "requirement_faults",
    "structures",
]
