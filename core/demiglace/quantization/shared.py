"""A weight whose elements take their values from a few that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from demiglace.quantization.packing import pack, packed_length
from demiglace.quantization.stored import CODES, StoredWeight, columns_of, rows_of

CODEBOOK = "_codebook"
"""What the values add to a weight's name."""

MAX_ENTRIES = 256
"""Values of a codebook, at most."""


@dataclass(frozen=True, eq=False)
class SharedTensor(StoredWeight):
    """A weight as packed integers that number the values of a codebook (Han et al. 2016, section 3)."""

    codes: Tensor
    #: Floating point `[entries]`; the smallest integer stands for the first one.
    codebook: Tensor
    shape: tuple[int, ...]
    axis: int = 0

    @classmethod
    def empty(
        cls,
        shape: tuple[int, ...],
        entries: int,
        *,
        axis: int = 0,
        values: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> SharedTensor:
        """Memory for a weight of this shape, its values undefined."""
        length = packed_length(columns_of(shape, axis), _bits(entries))
        codes = torch.empty(rows_of(shape, axis), length, dtype=torch.uint8, device=device)
        return cls(codes, torch.empty(entries, dtype=values, device=device), tuple(shape), axis)

    @classmethod
    def of(cls, index: Tensor, codebook: Tensor, shape: tuple[int, ...], *, axis: int = 0) -> SharedTensor:
        """Pack indices of values, integers of the weight's shape.

        Raises:
            ValueError: when the codebook has more values than integers of eight bits can number, or none.
        """
        entries = len(codebook)
        if not 1 <= entries <= MAX_ENTRIES:
            raise ValueError(f"a codebook has 1 to {MAX_ENTRIES} values, not {entries}")
        signed = index.movedim(axis, 0).reshape(rows_of(shape, axis), -1) - _first(entries)
        return cls(pack(signed, _bits(entries)), codebook, tuple(shape), axis)

    @property
    def bits(self) -> int:
        return _bits(len(self.codebook))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        index = self._index()
        values = self.codebook.to(dtype).index_select(0, index.flatten())
        if len(self.shape) == 1:
            return values
        rest = [size for dim, size in enumerate(self.shape) if dim != self.axis]
        return values.reshape(self.codes.shape[0], *rest).movedim(0, self.axis)

    def rows(self, index: Tensor) -> Self:
        # The number of rows is a symbol, not a number, while it is traced.
        return replace(self, codes=self.codes[index], shape=(index.shape[0], *self.shape[1:]))

    def zeros(self) -> int:
        return int((self.codebook[self._index()] == 0).sum())

    def tensors(self) -> dict[str, Tensor]:
        return {CODES: self.codes, CODEBOOK: self.codebook}

    def holding(self, tensors: Mapping[str, Tensor | None]) -> Self:
        codes, codebook = tensors[CODES], tensors[CODEBOOK]
        if codes is None or codebook is None:
            raise ValueError("a shared weight has lost its buffers")
        return replace(self, codes=codes, codebook=codebook)

    def options(self) -> dict[str, Any]:
        values = str(self.codebook.dtype).removeprefix("torch.")
        return {"entries": len(self.codebook), "values": values}

    def _index(self) -> Tensor:
        return self.integers.to(torch.int32) + _first(len(self.codebook))


def _bits(entries: int) -> int:
    return max(1, (entries - 1).bit_length())


def _first(entries: int) -> int:
    """How far the smallest integer is below 0."""
    return 1 << (_bits(entries) - 1)
