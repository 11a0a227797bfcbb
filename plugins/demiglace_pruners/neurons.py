"""`prune.neurons`: remove hidden units of MLP blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.passes import Kind, PassSpec
from demiglace_pruners._structures import StructuralConfig, StructuralEditor

if TYPE_CHECKING:
    from demiglace.graph import Group, ModelGraph


class NeuronsConfig(StructuralConfig):
    """Remove hidden units of MLP blocks: neurons between two linear layers.

    What a residual connection or an attention ties to other layers stays as it is.
    """

    def words(self) -> str:
        return self._phrase("hidden neurons")


class Neurons(StructuralEditor):
    """Groups that one linear layer produces and only linear layers read."""

    units = "hidden neurons"

    def takes(self, group: Group, model: ModelGraph) -> bool:
        produced, consumed = group.layers("produced"), group.layers("consumed")
        weights = [one.tensor for one in group.slices if one.role != "tied"]
        matrices = all(model.module.get_parameter(name).dim() == 2 for name in weights)
        return len(produced) == 1 and bool(consumed) and matrices and not group.heads


SPEC = PassSpec(
    "prune.neurons",
    Kind.EDITOR,
    NeuronsConfig,
    "demiglace_pruners.neurons:Neurons",
    '[[pass]]\nuse = "prune.neurons"\namount = 0.5\n',
)
