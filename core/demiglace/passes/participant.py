"""A pass at work inside a training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Edit


class Participant:
    """What the training loop calls; every method does nothing unless overridden."""

    def loss(self) -> Mapping[str, Tensor]:
        """Named terms to add to the loss."""
        return {}

    def finish(self) -> Iterable[Edit]:
        """Edits to make once training is over."""
        return ()
