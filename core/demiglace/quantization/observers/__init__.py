"""From the values that a layer saw to the range that integers shall cover."""

from demiglace.quantization.observers.minmax import MinMax
from demiglace.quantization.observers.mse import LeastSquares
from demiglace.quantization.observers.observer import Observer
from demiglace.quantization.observers.percentile import Percentile

OBSERVERS: dict[str, type[Observer]] = {"minmax": MinMax, "percentile": Percentile, "mse": LeastSquares}
"""By their names in recipes."""

__all__ = ["OBSERVERS", "LeastSquares", "MinMax", "Observer", "Percentile"]
