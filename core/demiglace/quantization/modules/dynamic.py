"""A linear layer that computes on integers, its inputs quantized as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.integer import affine_linear, quantize_rows
from demiglace.quantization.modules.fused import each, must_be_called
from demiglace.quantization.modules.weight_only import QuantizedLinear


class IntegerLinear(QuantizedLinear):
    """`nn.Linear` on int8 weights, symmetric, one scale for each output or for all."""

    #: The sum of each row of the weight, `[out_features]`.
    weight_sums: Tensor

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__(old, options)
        must_be_called(self)
        device = self.quantized("weight").codes.device
        self.register_buffer("weight_sums", torch.empty(self.out_features, device=device))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.is_nested:
            return each(self.forward, input)
        rows = input.reshape(-1, self.in_features).float()
        output = self.linear(*self.quantize_inputs(rows))
        output = output if self.bias is None else output.add_(self.bias)
        return output.to(input.dtype).view(*input.shape[:-1], self.out_features)

    def quantize_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs `[n, in_features]` as int8, with scales and zero points that broadcast to `[n, 1]`."""
        raise NotImplementedError

    def linear(self, integers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The layer's output without its bias, of int8 inputs `[n, in_features]`."""
        weight = self.quantized("weight")
        return affine_linear(
            integers, scale, zero, weight.integers, weight.scale.float().flatten(), self.weight_sums.float()
        )


class DynamicLinear(IntegerLinear):
    """Each row of the input is quantized to int8 by its own range (asymmetric), then multiplied exactly."""

    def quantize_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return quantize_rows(rows)
