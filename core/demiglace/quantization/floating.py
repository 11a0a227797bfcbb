"""Models with layers put back into what they were: in floating point, or with their zeros."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from torch import nn

from demiglace.quantization.modules.cast import CastsInputs
from demiglace.quantization.modules.fused import may_be_read
from demiglace.quantization.modules.holder import QuantizedHolder
from demiglace.quantization.modules.sparse import SparseLinear, SparseWeight
from demiglace.quantization.stored import StoredWeight

_OF_INTEGERS = ("weight_sums", "input_scale", "input_zero_point")
"""Further buffers of layers that compute on integers."""


def floating(module: nn.Module) -> nn.Module:
    """A copy in float32: layers that hold integers, or nothing of their zeros, become what they were.

    Weights have the values that the integers stand for; inputs are not rounded any more, and norms that were
    folded into weights stay there. A plain-data graph keeps the roundings on its edges.
    """
    copy = deepcopy(module)
    for layer in list(copy.modules()):
        if isinstance(layer, QuantizedHolder):
            _restore(layer, dict(layer.quantized_weights()))
        if isinstance(layer, SparseLinear):
            _restore(layer, dict(layer.sparse_weights()))
        if isinstance(layer, CastsInputs):
            layer.__class__ = type(layer).__bases__[1]
    return copy.float()


def with_zeros(module: nn.Module) -> nn.Module:
    """A copy whose layers of compressed rows hold whole weights again; the module itself where none is."""
    if not any(isinstance(layer, SparseLinear) for layer in module.modules()):
        return module
    copy = deepcopy(module)
    for layer in list(copy.modules()):
        if isinstance(layer, SparseLinear):
            _restore(layer, dict(layer.sparse_weights()))
    return copy


def _restore(layer: nn.Module, held: Mapping[str, StoredWeight | SparseWeight]) -> None:
    """Make a layer what it was, under the same object, with the weights that it holds in another form."""
    weights = {name: weight.dequantize() for name, weight in held.items()}
    parts = [name + part for name, weight in held.items() for part in weight.tensors()]
    for name in (*parts, *_OF_INTEGERS):
        layer._buffers.pop(name, None)
    may_be_read(layer)
    base = next(one for one in type(layer).__mro__ if not issubclass(one, QuantizedHolder | SparseLinear))
    object.__setattr__(layer, "__class__", base)
    for name, value in weights.items():
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
