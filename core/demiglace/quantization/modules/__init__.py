"""Layers that hold integer weights, made of the layers that they replace."""

from demiglace.quantization.modules.cast import CastsInputs, casting
from demiglace.quantization.modules.clustered import Clustered, clustered
from demiglace.quantization.modules.dynamic import DynamicLinear, IntegerLinear
from demiglace.quantization.modules.fake import FakeQuantized, fake_quantized
from demiglace.quantization.modules.holder import (
    Dequantized,
    QuantizedHolder,
    weight_options,
    weight_tensors,
)
from demiglace.quantization.modules.identity import identity
from demiglace.quantization.modules.sparse import SparseLinear, SparseWeight
from demiglace.quantization.modules.static import StaticConv1d, StaticConv2d, StaticLinear
from demiglace.quantization.modules.trained import own_weights
from demiglace.quantization.modules.weight_only import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedConv3d,
    QuantizedConvTranspose1d,
    QuantizedConvTranspose2d,
    QuantizedConvTranspose3d,
    QuantizedEmbedding,
    QuantizedLayer,
    QuantizedLinear,
    QuantizedMultiheadAttention,
    keeping_forward,
)
from demiglace.quantization.modules.zero_free import leaving_out_zeros

__all__ = [
    "CastsInputs",
    "Clustered",
    "Dequantized",
    "DynamicLinear",
    "FakeQuantized",
    "IntegerLinear",
    "QuantizedConv1d",
    "QuantizedConv2d",
    "QuantizedConv3d",
    "QuantizedConvTranspose1d",
    "QuantizedConvTranspose2d",
    "QuantizedConvTranspose3d",
    "QuantizedEmbedding",
    "QuantizedHolder",
    "QuantizedLayer",
    "QuantizedLinear",
    "QuantizedMultiheadAttention",
    "SparseLinear",
    "SparseWeight",
    "StaticConv1d",
    "StaticConv2d",
    "StaticLinear",
    "casting",
    "clustered",
    "fake_quantized",
    "identity",
    "keeping_forward",
    "leaving_out_zeros",
    "own_weights",
    "weight_options",
    "weight_tensors",
]
