"""Several statistics of one layer in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demiglace.calibration.collector import Collector

if TYPE_CHECKING:
    from torch import nn


class Several(Collector):
    """Hands every call on to each of its parts."""

    def __init__(self, *parts: Collector) -> None:
        self.parts = parts

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for part in self.parts:
            part.see(module, inputs, output)
            part.calls += 1
