"""Layers that compute on integers with input ranges fixed by calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.integer import quantize_activation
from demiglace.quantization.modules.dynamic import IntegerLinear
from demiglace.quantization.modules.weight_only import QuantizedConv1d, QuantizedConv2d


class StaticLinear(IntegerLinear):
    """`nn.Linear` on int8 inputs of one fixed range and a symmetric integer weight, multiplied exactly."""

    #: The input's scale and zero point, scalars.
    input_scale: Tensor
    input_zero_point: Tensor

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__(old, options)
        _become_static(self, options)

    def quantize_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, zero = self.input_scale, self.input_zero_point
        return quantize_activation(rows, scale, zero), scale, zero


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
        layer.bias = nn.Parameter(torch.empty(len(codes), device=codes.device), requires_grad=False)


def _static_convolution(layer: StaticConv1d | StaticConv2d, values: Tensor) -> Tensor:
    """A convolution of integers, carried by float32, which holds them exactly below 2**24.

    The zero point is taken off first, so that padding with 0 is padding with a real 0.
    """
    scale, zero = layer.input_scale, layer.input_zero_point
    integers = quantize_activation(values.float(), scale, zero).float() - zero
    weight = layer.quantized("weight")
    outputs = layer._conv_forward(integers, weight.integers.float().view(weight.shape), None)
    along = (-1, *[1] * len(layer.kernel_size))
    outputs = outputs.mul_(scale * weight.scale.float().view(along))
    return (outputs if layer.bias is None else outputs.add_(layer.bias.view(along))).to(values.dtype)
