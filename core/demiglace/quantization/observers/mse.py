"""The range that rounds and clips with the least squared error."""

from __future__ import annotations

import torch

from demiglace.quantization.affine import fit, to_integers, to_real
from demiglace.quantization.observers.observer import Observer
from demiglace.quantization.scheme import Scheme

_SHARES = tuple(1 - 0.02 * step for step in range(46))  # of the full range, down to 0.1


class LeastSquares(Observer):
    """Tries shares of the full range on the histogram and takes the one of least squared error."""

    def range(self, scheme: Scheme) -> tuple[float, float]:
        ends = torch.tensor([self.low, self.high])
        best = min(_SHARES, key=lambda share: self._error(ends * share, scheme))
        return self.low * best, self.high * best

    def _error(self, ends: torch.Tensor, scheme: Scheme) -> float:
        scale, zero = fit(ends[0], ends[1], scheme)
        values = self.centres.float()
        error = to_real(to_integers(values, scale, zero, scheme), scale, zero) - values
        return float((error.double().square() * self.counts).sum())
