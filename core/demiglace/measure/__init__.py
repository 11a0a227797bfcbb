"""Figures of a model: what every pass did is measured with these."""

from demiglace.measure.finite import first_nonfinite
from demiglace.measure.footprint import Footprint, LayerFootprint, measure
from demiglace.measure.macs import macs_of
from demiglace.measure.timing import Timing, in_turn

__all__ = ["Footprint", "LayerFootprint", "Timing", "first_nonfinite", "in_turn", "macs_of", "measure"]
