"""`prune.heads`: remove whole heads of attention; the size of a head stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.passes import Kind, PassSpec
from demiglace_pruners._structures import StructuralConfig, StructuralEditor

if TYPE_CHECKING:
    from demiglace.graph import Group, ModelGraph


class HeadsConfig(StructuralConfig):
    """Remove whole heads of attention; the size of a head stays.

    Query, key and value rows go with the columns of the output projection that read them; a key-value head
    that several query heads share goes with them.
    """

    def words(self) -> str:
        return self._phrase("heads")


class Heads(StructuralEditor):
    """Groups whose units index independent products of activations."""

    units = "heads"

    def takes(self, group: Group, model: ModelGraph) -> bool:
        return group.heads


SPEC = PassSpec(
    "prune.heads",
    Kind.EDITOR,
    HeadsConfig,
    "demiglace_pruners.heads:Heads",
    '[[pass]]\nuse = "prune.heads"\namount = 0.5\n',
)
