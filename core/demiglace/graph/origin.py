"""Where a model's structure comes from: how it is built again before its edits are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from demiglace.graph.edits import Json


@dataclass(frozen=True)
class SourceOrigin:
    """A registered source with its options builds the structure."""

    use: str
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class CallerOrigin:
    """A caller's own module: whoever loads hands in one of the same structure."""

    #: `module.QualifiedName` of its class, for messages.
    type: str


@dataclass(frozen=True)
class GraphOrigin:
    """A plain-data graph that is stored with the artifact."""

    file: str = "graph.json"


Origin: TypeAlias = SourceOrigin | CallerOrigin | GraphOrigin
