"""Small integers packed into bytes without a wasted bit."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def packed_length(count: int, bits: int) -> int:
    """How many bytes hold `count` integers of `bits` bits, in whole units."""
    values, octets = _unit(bits)
    return math.ceil(count / values) * octets


def pack(integers: Tensor, bits: int) -> Tensor:
    """Pack the last dimension of signed integers into bytes, little end first.

    As many integers as fill whole bytes make a unit: 8 of three bits in 3 bytes, 2 of four bits in 1. The
    last unit of a row is filled up with zeros.

    Args:
        integers: any integer dtype, `[..., n]`, each from `-2**(bits-1)` to `2**(bits-1) - 1`.
        bits: 1 to 8.

    Returns:
        uint8, `[..., packed_length(n, bits)]`.
    """
    values, octets = _unit(bits)
    if octets == 1 and values == 1:
        return integers.to(torch.int8).view(torch.uint8)
    spare, wide = -integers.shape[-1] % values, _wide(octets)
    units = F.pad(integers.to(wide) & ((1 << bits) - 1), (0, spare)).unflatten(-1, (-1, values))
    words = (units << _steps(values, bits, integers.device).to(wide)).sum(-1, keepdim=True, dtype=wide)
    return (words >> _steps(octets, 8, integers.device).to(wide) & 0xFF).to(torch.uint8).flatten(-2)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The integers that `pack` packed: int8, `[..., count]`.

    Operators are called by the names that a plain-data graph may hold, not by Python's signs.
    """
    values, octets = _unit(bits)
    if octets == 1 and values == 1:
        return packed.view(torch.int8)
    wide = _wide(octets)
    units = packed.to(wide).unflatten(-1, (-1, octets))
    placed = torch.bitwise_left_shift(units, _steps(octets, 8, packed.device).to(wide))
    words = placed.sum(-1, keepdim=True, dtype=wide)
    fields = torch.bitwise_right_shift(words, _steps(values, bits, packed.device).to(wide))
    sign = 1 << (bits - 1)
    signed = torch.bitwise_xor(torch.bitwise_and(fields, (1 << bits) - 1), sign) - sign
    return signed.to(torch.int8).flatten(-2)[..., :count]


def _unit(bits: int) -> tuple[int, int]:
    """How many integers fill whole bytes, and how many bytes."""
    whole = math.lcm(bits, 8)
    return whole // bits, whole // 8


def _wide(octets: int) -> torch.dtype:
    """Where a unit of so many bytes fits below the sign."""
    return torch.int16 if octets == 1 else torch.int32 if octets <= 3 else torch.int64


def _steps(count: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(0, count * step, step, device=device)
