"""Figures of a model: what every pass did is measured with these."""

from demiglace.measure.finite import first_nonfinite
from demiglace.measure.footprint import Footprint, LayerFootprint, measure
from demiglace.measure.macs import macs_of

__all__ = ["Footprint", "LayerFootprint", "first_nonfinite", "macs_of", "measure"]
