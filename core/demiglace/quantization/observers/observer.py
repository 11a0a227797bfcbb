"""What observers have in common."""

from __future__ import annotations

from abc import abstractmethod

from demiglace.calibration import Histogram
from demiglace.quantization.scheme import Scheme


class Observer(Histogram):
    """A histogram of a layer's inputs that chooses a range."""

    @abstractmethod
    def range(self, scheme: Scheme) -> tuple[float, float]:
        """The range to cover with the integers of `scheme`, its ends finite, lower first."""
