"""A tensor of small integers with its scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from demiglace.quantization.packing import pack, packed_length, unpack
from demiglace.quantization.scheme import Scheme
from demiglace.quantization.stored import CODES, StoredWeight, columns_of

SCALE, ZERO = "_scale", "_zero_point"
"""What scales and zero points add to a weight's name."""


@dataclass(frozen=True, eq=False)
class QTensor(StoredWeight):
    """A weight as packed integers: `(integer - zero_point) * scale`.

    A row is cut into groups, each with a scale and a zero point.
    """

    codes: Tensor
    #: Floating point `[rows, groups]`, or `[1, 1]` for the whole tensor.
    scale: Tensor
    #: uint8, packed like the codes along the groups; `None` when symmetric.
    zero_point: Tensor | None
    shape: tuple[int, ...]
    scheme: Scheme
    axis: int = 0

    @classmethod
    def empty(
        cls,
        shape: tuple[int, ...],
        scheme: Scheme,
        *,
        axis: int = 0,
        scales: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> QTensor:
        """Memory for a weight of this shape, its values undefined."""
        rows, columns = shape[axis], columns_of(shape, axis)
        groups = scheme.groups(columns)
        lead = 1 if scheme.per_tensor else rows
        zeros = None if scheme.symmetric else (lead, packed_length(groups, scheme.bits))
        return cls(
            torch.empty(rows, packed_length(columns, scheme.bits), dtype=torch.uint8, device=device),
            torch.empty(lead, groups, dtype=scales, device=device),
            None if zeros is None else torch.empty(zeros, dtype=torch.uint8, device=device),
            tuple(shape),
            scheme,
            axis,
        )

    @classmethod
    def of(
        cls,
        integers: Tensor,
        scale: Tensor,
        zero: Tensor,
        scheme: Scheme,
        shape: tuple[int, ...],
        *,
        axis: int = 0,
        scales: torch.dtype = torch.float32,
    ) -> QTensor:
        """Pack integers `[rows, groups, size]` with scales and zero points `[rows, groups, 1]`."""
        packed_zero = None if scheme.symmetric else pack(zero.squeeze(-1).to(torch.int8), scheme.bits)
        codes = pack(integers.flatten(1).to(torch.int8), scheme.bits)
        return cls(codes, scale.squeeze(-1).to(scales), packed_zero, tuple(shape), scheme, axis)

    @property
    def bits(self) -> int:
        return self.scheme.bits

    @property
    def zeros_of_groups(self) -> Tensor:
        """The zero points, int8 `[rows, groups]`, 0 where symmetric."""
        if self.zero_point is None:
            return torch.zeros(self.scale.shape, dtype=torch.int8, device=self.scale.device)
        return unpack(self.zero_point, self.scheme.bits, self.scale.shape[1])

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        matrix = self._centred().to(dtype) * self.scale.to(dtype).unsqueeze(-1)
        rest = [size for dim, size in enumerate(self.shape) if dim != self.axis]
        return matrix.reshape(self.codes.shape[0], *rest).movedim(0, self.axis)

    def rows(self, index: Tensor) -> Self:
        own = not self.scheme.per_tensor
        return replace(
            self,
            codes=self.codes[index],
            scale=self.scale[index] if own else self.scale,
            zero_point=self.zero_point[index] if own and self.zero_point is not None else self.zero_point,
            shape=(index.shape[0], *self.shape[1:]),  # a symbol, not a number, while it is traced
        )

    def zeros(self) -> int:
        return int((self._centred() == 0).sum())

    def tensors(self) -> dict[str, Tensor]:
        own = {CODES: self.codes, SCALE: self.scale}
        return own if self.zero_point is None else {**own, ZERO: self.zero_point}

    def holding(self, tensors: Mapping[str, Tensor | None]) -> Self:
        codes, scale = tensors[CODES], tensors[SCALE]
        if codes is None or scale is None:
            raise ValueError("integers have lost their buffers")
        return replace(self, codes=codes, scale=scale, zero_point=tensors.get(ZERO))

    def options(self) -> dict[str, Any]:
        scheme = self.scheme
        return {
            "bits": scheme.bits,
            "symmetric": scheme.symmetric,
            "group": scheme.group,
            "per_tensor": scheme.per_tensor,
            "scales": str(self.scale.dtype).removeprefix("torch."),
        }

    def _centred(self) -> Tensor:
        """Integers less their zero point, int16 `[rows, groups, size]`."""
        grouped = self.integers.unflatten(1, (self.scale.shape[1], -1))
        if self.zero_point is None:
            return grouped
        return grouped.to(torch.int16) - self.zeros_of_groups.unsqueeze(-1)


def grouped(weight: Tensor, scheme: Scheme, axis: int = 0) -> Tensor:
    """A weight as `[rows, groups, size]`."""
    return (
        weight.movedim(axis, 0).flatten(1).unflatten(1, (scheme.groups(columns_of(weight.shape, axis)), -1))
    )
