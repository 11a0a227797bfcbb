"""`prune.finalize`: make masks permanent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.errors import GraphError
from demiglace.graph import Unmask
from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Targeted

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph


class FinalizeConfig(Targeted):
    """Make masks permanent: zeros stay, as ordinary weights that nothing holds any more."""

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(needs=("weights.masked",), destroys=("weights.masked",) if whole else ())

    def words(self) -> str:
        return "make the masks permanent: zeros stay, but later training may change them"


class Finalize(Editor[FinalizeConfig]):
    """Drops the masks of selected parameters: weights, biases, and norm vectors alike."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Unmask]:
        names = list(model.masked(self.config.targets, self.config.ignore))
        if not names:
            raise GraphError(
                f"targets {self.config.targets} select no parameter that has a mask",
                hint="prune before, or set `targets` to pruned layers",
            )
        for name in names:
            yield Unmask(name)


SPEC = PassSpec(
    "prune.finalize",
    Kind.EDITOR,
    FinalizeConfig,
    "demiglace_pruners.finalize:Finalize",
    '[[pass]]\nuse = "prune.finalize"\n',
)
