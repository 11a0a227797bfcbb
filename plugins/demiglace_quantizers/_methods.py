"""The built-in methods of rounding: importing them registers them."""

from demiglace_quantizers import _adaround, _gptq, _hqq, _nearest

__all__ = ["_adaround", "_gptq", "_hqq", "_nearest"]
