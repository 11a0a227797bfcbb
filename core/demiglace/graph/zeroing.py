"""Writing the zeros of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS = 1 << 18  # at a time, so that what torch makes of the mask stays small


def zero_outside(tensor: Tensor, keep: Tensor) -> None:
    """Make a tensor zero, in place, wherever `keep` is false; NaN and infinity become zero too.

    Args:
        tensor: on any device; of any dtype.
        keep: boolean, of the tensor's shape, on its device.
    """
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensor.dtype.itemsize not in integers:  # complex128
        tensor.detach().masked_fill_(~keep, 0)
        return
    # The product of bits with 0 is the bits of 0, and vectorised, which a masked fill is not.
    bits = tensor.detach().view(integers[tensor.dtype.itemsize])
    if bits.dim() == 0:
        bits.mul_(keep)
        return
    rows = max(1, _ELEMENTS * len(bits) // max(1, bits.numel()))
    for part, kept in zip(bits.split(rows), keep.split(rows), strict=True):
        part.mul_(kept.view(torch.int8))
