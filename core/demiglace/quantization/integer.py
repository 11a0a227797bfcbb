"""Products of integer matrices, exact in 32 bits."""

from __future__ import annotations

import torch
from torch import Tensor

CODE_LOW, CODE_HIGH = -128, 127
"""Activations take all values of eight bits."""


def integer_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T` of int8 matrices `[n, k]` and `[m, k]`: int32 `[n, m]`.

    Uses torch's integer kernel where it takes these operands, float64 products elsewhere; both are exact.
    """
    if left.shape[1] == 1:
        # Torch 2.14 reads a transposed column as if its numbers lay elsewhere.
        return left.to(torch.int32) * right.t().to(torch.int32)
    if left.device.type == "cpu" and left.shape[0] and left.shape[1]:
        return torch._int_mm(left, right.t())
    return (left.double() @ right.t().double()).to(torch.int32)


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row of `[n, k]` as int8 with its own range: integers, scales `[n, 1]`, zero points `[n, 1]`.

    The range takes in zero, which is exact; a row of zeros has scale 1. Rows with NaN stay NaN by their
    scale.
    """
    # Two reductions: torch's `aminmax` along a dimension takes twenty times as long on processors.
    low, high = values.amin(1, keepdim=True).clamp_max(0), values.amax(1, keepdim=True).clamp_min(0)
    scale = (high - low) / (CODE_HIGH - CODE_LOW)
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (CODE_LOW - low / scale).round_()
    return quantize_activation(values, scale, zero), scale, zero


def quantize_activation(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Saturated int8 integers of activations, for scales and zero points that broadcast."""
    # Rounded before the zero point is added, half to even, as ONNX defines it: a file rounds alike.
    return (values / scale).round_().add_(zero).clamp_(CODE_LOW, CODE_HIGH).to(torch.int8)


def affine_linear(
    integers: Tensor, scale: Tensor, zero: Tensor, weight: Tensor, weight_scale: Tensor, sums: Tensor
) -> Tensor:
    """A linear layer on integers, as float32 `[n, m]`.

    `s_x s_w (q_x q_w^T - z_x sum(q_w))`: the zero point leaves the product by the weight's row sums
    (Jacob et al. 2018, equation 7).

    Args:
        integers: int8 `[n, k]` with scales and zero points that broadcast to `[n, 1]`.
        scale: of the activations.
        zero: of the activations.
        weight: int8 `[m, k]`, symmetric.
        weight_scale: `[m]` or `[1]`.
        sums: of the weight's rows, `[m]`.
    """
    product = integer_product(integers, weight).float()
    return product.addcmul_(zero, sums, value=-1).mul_(scale).mul_(weight_scale)
