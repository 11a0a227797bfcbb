"""From a model to ONNX: torch's own translation, and ours of what quantizers make."""

from demiglace_exporters.translation.translate import Translated, translate

__all__ = ["Translated", "translate"]
