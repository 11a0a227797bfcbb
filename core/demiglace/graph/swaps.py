"""The types of modules that a `Swap` may put in place of another, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from demiglace.errors import GraphError
from demiglace.graph.edits import Json

if TYPE_CHECKING:
    from torch import nn

SwapType: TypeAlias = "Callable[[nn.Module, Mapping[str, Json]], nn.Module]"
"""From the module that goes and plain options to the module that comes; its tensors may be undefined."""

_QUANTIZED = "demiglace.quantization.modules"
_TYPES = {
    "identity": f"{_QUANTIZED}:identity",
    "skip": "demiglace.graph.skip:Skip",
    "cast": f"{_QUANTIZED}:casting",
    "fake_quantized": f"{_QUANTIZED}:fake_quantized",
    "sparse.linear": f"{_QUANTIZED}:SparseLinear",
    "clustered": f"{_QUANTIZED}:clustered",
    "own_weights": f"{_QUANTIZED}:own_weights",
    "quantized.linear": f"{_QUANTIZED}:QuantizedLinear",
    "quantized.linear.dynamic": f"{_QUANTIZED}:DynamicLinear",
    "quantized.linear.static": f"{_QUANTIZED}:StaticLinear",
    "quantized.linear.zero_free": f"{_QUANTIZED}:leaving_out_zeros",
    "quantized.conv1d.static": f"{_QUANTIZED}:StaticConv1d",
    "quantized.conv2d.static": f"{_QUANTIZED}:StaticConv2d",
    "quantized.conv1d": f"{_QUANTIZED}:QuantizedConv1d",
    "quantized.conv2d": f"{_QUANTIZED}:QuantizedConv2d",
    "quantized.conv3d": f"{_QUANTIZED}:QuantizedConv3d",
    "quantized.conv_transpose1d": f"{_QUANTIZED}:QuantizedConvTranspose1d",
    "quantized.conv_transpose2d": f"{_QUANTIZED}:QuantizedConvTranspose2d",
    "quantized.conv_transpose3d": f"{_QUANTIZED}:QuantizedConvTranspose3d",
    "quantized.embedding": f"{_QUANTIZED}:QuantizedEmbedding",
    "quantized.layer": f"{_QUANTIZED}:QuantizedLayer",
    "quantized.own_forward": f"{_QUANTIZED}:keeping_forward",
    "quantized.attention": f"{_QUANTIZED}:QuantizedMultiheadAttention",
}


def swapped(kind: str, old: nn.Module, options: Mapping[str, Json]) -> nn.Module:
    """The module of a registered type that takes the place of `old`, which stays as it is.

    Raises:
        GraphError: when there is no such type, or it cannot be made of `old` with these options.
    """
    place = _TYPES.get(kind)
    if place is None:
        raise GraphError(
            f"no module type {kind!r} is known", hint="install the version of demiglace that made this model"
        )
    module, _, name = place.partition(":")
    made: SwapType = getattr(import_module(module), name)
    try:
        return made(old, options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GraphError(f"a {type(old).__name__} cannot become a {kind!r}: {error!r}") from error
