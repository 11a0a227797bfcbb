"""`prune.channels`: remove channels and neurons with everything tied to them."""

from __future__ import annotations

from demiglace.passes import Kind, PassSpec
from demiglace_pruners._structures import StructuralConfig, StructuralEditor


class ChannelsConfig(StructuralConfig):
    """Remove channels of convolutions and neurons of linear layers, with everything tied to them.

    A unit is what must go together: a channel with its norm and the weights that read it, a channel of a
    residual stream over all its layers, a whole head of attention.
    """

    def words(self) -> str:
        return self._phrase("channels")


class Channels(StructuralEditor):
    """All groups of the model."""

    units = "channels"


SPEC = PassSpec(
    "prune.channels",
    Kind.EDITOR,
    ChannelsConfig,
    "demiglace_pruners.channels:Channels",
    '[[pass]]\nuse = "prune.channels"\namount = 0.5\n',
)
