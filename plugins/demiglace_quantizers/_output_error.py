"""What errors of a weight do to its layer's outputs, told by the moments of the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def times(error: Tensor, moments: Tensor) -> Tensor:
    """Errors of rows `[rows, ...]` times the moments of their inputs `[groups, k, k]`, in the same shape."""
    matrix = error.flatten(1).unflatten(0, (len(moments), -1))
    return (matrix @ moments).view(error.shape)


def output_error(error: Tensor, moments: Tensor) -> Tensor:
    """The mean squared change of each output, `[rows]`."""
    return (error * times(error, moments)).flatten(1).sum(1)
