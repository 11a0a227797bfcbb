"""How much a pruner removes, and among which weights it compares."""

from __future__ import annotations

from typing import Literal

from demiglace.passes import Targeted

Of = Literal["total", "remaining"]


class Ranked(Targeted):
    """Options of a pruner that ranks weights and removes a share of them."""

    of: Of = "total"
    """What the amount is a share of: `total`, all selected weights, so that 30 % twice is 30 %;
    `remaining`, those that are not zero yet, so that 30 % twice is 51 %."""


class Scoped(Ranked):
    """Options of a pruner that may compare weights over layers."""

    scope: Literal["global", "layer"] = "global"
    """`global` ranks the weights of all selected layers together; `layer` removes the amount of each."""

    def scope_words(self) -> str:
        """Among which weights the ranking is made."""
        return "over all selected layers together" if self.scope == "global" else "in each layer"


def removals(amount: float, of: Of, total: int, zeros: int) -> int:
    """How many of `total` are zero in the end, when `zeros` are zero now.

    Args:
        amount: a share, 0 to 1.
        of: see `Ranked.of`.
        total: all that can be removed.
        zeros: those of them that are zero already.
    """
    return zeros + round(amount * (total - zeros)) if of == "remaining" else round(amount * total)


def amount_words(amount: float, of: Of, what: str = "weights") -> str:
    """An amount as `plan` says it."""
    rest = f"the {what} that are not zero yet" if of == "remaining" else f"the {what}, zeros included"
    return f"{100 * amount:.6g} % of {rest}"
