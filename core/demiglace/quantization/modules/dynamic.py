"""A linear layer that computes on integers, its inputs quantized as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.modules.fused import each, must_be_called
from demiglace.quantization.modules.weight_only import QuantizedLinear
from demiglace.quantization.operators import dynamic_linear, traceable
from demiglace.quantization.qtensor import QTensor


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
        return self.linear(input, self.quantized("weight"))

    def linear(self, values: Tensor, weight: QTensor) -> Tensor:
        """The layer's output of inputs `[..., in_features]`, in their dtype."""
        raise NotImplementedError


class DynamicLinear(IntegerLinear):
    """Each row of the input is quantized to int8 by its own range (asymmetric), then multiplied exactly."""

    def linear(self, values: Tensor, weight: QTensor) -> Tensor:
        sums, bits = self.weight_sums, weight.scheme.bits
        return traceable(dynamic_linear)(values, weight.codes, weight.scale, sums, self.bias, bits)
