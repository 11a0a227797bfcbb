"""Layers that compute on integers with input ranges fixed by calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demiglace.quantization.modules.dynamic import IntegerLinear
from demiglace.quantization.modules.weight_only import QuantizedConv1d, QuantizedConv2d
from demiglace.quantization.operators import static_convolution, static_linear, traceable
from demiglace.quantization.qtensor import QTensor


class StaticLinear(IntegerLinear):
    """`nn.Linear` on int8 inputs of one fixed range and a symmetric integer weight, multiplied exactly."""

    #: The input's scale and zero point, scalars.
    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__(old, options)
        _become_static(self, options)

    def linear(self, values: Tensor, weight: QTensor) -> Tensor:
        scale, zero = self.input_scale, self.input_zero_point
        held = (weight.codes, weight.scale, self.weight_sums, self.bias, weight.scheme.bits)
        return traceable(static_linear)(values, scale, zero, *held)


class StaticConv1d(QuantizedConv1d):
    """`nn.Conv1d` on int8 inputs of one fixed range and a symmetric integer weight."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__(old, options)
        _become_static(self, options)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return _static_convolution(self, input)


class StaticConv2d(QuantizedConv2d):
    """`nn.Conv2d` on int8 inputs of one fixed range and a symmetric integer weight."""

    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__(old, options)
        _become_static(self, options)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return _static_convolution(self, input)


def _become_static(layer: StaticLinear | StaticConv1d | StaticConv2d, options: Mapping[str, Any]) -> None:
    """Hold the input's range, and a bias where a folded batch norm brings one."""
    codes = layer.quantized("weight").codes
    layer.register_buffer("input_scale", torch.empty((), device=codes.device))
    layer.register_buffer("input_zero_point", torch.empty((), device=codes.device))
    if options["bias"] and layer.bias is None:
        empty = torch.empty(len(codes), device=codes.device, dtype=layer.compute_dtype)
        layer.bias = nn.Parameter(empty, requires_grad=False)


def _static_convolution(layer: StaticConv1d | StaticConv2d, values: Tensor) -> Tensor:
    weight = layer.quantized("weight")
    padded, padding = _padded(layer, values)
    return traceable(static_convolution)(
        *(padded, layer.input_scale, layer.input_zero_point, weight.codes, weight.scale, layer.bias),
        *(list(weight.shape), weight.scheme.bits, list(layer.stride), padding, list(layer.dilation)),
        layer.groups,
    )


def _padded(layer: StaticConv1d | StaticConv2d, values: Tensor) -> tuple[Tensor, list[int]]:
    """The inputs, padded where the operator cannot, and what is left for it to pad on both sides."""
    ends = layer._reversed_padding_repeated_twice
    uneven = list(ends[::2]) != list(ends[1::2])
    if layer.padding_mode == "zeros" and not uneven:
        return values, list(ends[::-2])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(values, ends, mode=mode), [0] * len(layer.stride)
