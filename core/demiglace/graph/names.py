"""A module's tensors by name: which there are, and which are one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under each of its names, buffers outside the state dict included."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def tied_names(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Groups of names that hold one tensor, each with the name that is stored first."""
    groups: dict[object, list[str]] = {}
    for name, tensor in named_tensors(module):
        groups.setdefault(_identity(tensor), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def _identity(tensor: Tensor) -> object:
    """Equal for two tensors that are the same elements of one storage."""
    if tensor.numel() == 0 or not holds_values(tensor):
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


def holds_values(tensor: Tensor) -> bool:
    """Whether a tensor is plain memory with values in it: not sparse, quantized by torch, or on meta."""
    import torch

    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def dtype_name(tensor: Tensor) -> str:
    """The dtype as torch names it, without `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")
