"""A measured figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """A figure with what is needed to judge and print it."""

    value: float
    #: Whether a larger value is better, or `None` where neither is (a count, say).
    higher_is_better: bool | None = None
    #: `share` prints as a percentage; `count`, `bytes`, `seconds`, or empty for a bare number.
    unit: str = ""
    #: How many examples the figure is a mean over, if it is one.
    examples: int | None = None
    #: Shape `[examples]`: the figure of each example in the data's order, for paired tests.
    per_example: Tensor | None = None
