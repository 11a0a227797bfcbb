"""What every weight that is stored as small integers can do, whatever they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from demiglace.quantization.packing import unpack


class StoredWeight(ABC):
    """A weight as packed integers and the few numbers that say what they stand for.

    The weight is seen as a matrix: the dimension `axis` makes its rows, all others its columns. A vector is
    one row.
    """

    #: uint8 `[rows, bytes]`: each row packed by itself.
    codes: Tensor
    #: The weight's own shape.
    shape: tuple[int, ...]
    #: The dimension of the weight whose indices are rows.
    axis: int

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of an integer, 1 to 8."""

    @property
    def storage(self) -> Tensor:
        """What is the same memory where the same weight is held twice."""
        return self.codes

    @property
    def integers(self) -> Tensor:
        """The integers, int8 `[rows, columns]`."""
        return unpack(self.codes, self.bits, columns_of(self.shape, self.axis))

    @abstractmethod
    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight in its own shape."""

    @abstractmethod
    def rows(self, index: Tensor) -> Self:
        """Some rows of a weight whose rows are its first dimension."""

    @abstractmethod
    def zeros(self) -> int:
        """How many weights are exactly zero."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """What is stored, by what it adds to the weight's name."""

    @abstractmethod
    def holding(self, tensors: Mapping[str, Tensor | None]) -> Self:
        """The same kind of weight with other tensors, named as those of `tensors`."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Plain data from which memory for such a weight is made again."""

    def numel(self) -> int:
        """How many weights there are."""
        return self.codes.shape[0] * columns_of(self.shape, self.axis)

    def stored_bits(self) -> int:
        """What all that is stored takes."""
        return 8 * sum(tensor.nbytes for tensor in self.tensors().values())


CODES = "_codes"
"""What the integers add to a weight's name."""


def rows_of(shape: tuple[int, ...], axis: int) -> int:
    """The rows of a weight of this shape."""
    return shape[axis] if len(shape) > 1 else 1


def columns_of(shape: tuple[int, ...], axis: int) -> int:
    """The columns of a weight of this shape."""
    if len(shape) == 1:
        return shape[0]
    columns = 1
    for dim, size in enumerate(shape):
        columns *= 1 if dim == axis else size
    return columns
