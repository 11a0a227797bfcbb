"""Masks held through training: whatever an optimizer does, masked weights are zero after its step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from demiglace.graph.zeroing import zero_outside

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from demiglace.graph import ModelGraph


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type of as many bytes."""


def hold_masks(optimizer: Optimizer, model: ModelGraph) -> RemovableHandle:
    """Zero the masked weights after each step of `optimizer`, until the handle is removed.

    It acts after momentum, weight decay and the moments of Adam, in any training loop. Masks that the
    model gets later are held too. NaN and infinity become zero like other values.
    """
    bits: dict[str, tuple[Tensor, Tensor]] = {}

    def after_step(*_: Any) -> None:
        for name, keep in model.masks.items():
            tensor = named_tensor(model, name).detach()
            if tensor.itemsize not in _INTEGERS:  # complex128
                zero_outside(tensor, keep)
                continue
            known, own = bits.get(name, (None, keep))
            if own.shape != tensor.shape or own.itemsize != tensor.itemsize:
                # As wide as the weights: nothing has to be converted in a step, which takes half the time.
                known, own = None, torch.empty_like(tensor, dtype=_INTEGERS[tensor.itemsize])
            if known is not keep:
                bits[name] = (keep, own.copy_(keep))
            # Bits, so that NaN becomes zero too.
            tensor.view(own.dtype).mul_(own)

    return optimizer.register_step_post_hook(after_step)


def zero_masked(model: ModelGraph) -> None:
    """Write the zeros of every mask into its tensor."""
    for name, keep in model.masks.items():
        zero_outside(named_tensor(model, name), keep)


def mask_gradients(model: ModelGraph) -> None:
    """Drop the gradients of masked weights, which would count in a norm though they move nothing."""
    for name, keep in model.masks.items():
        gradient = named_tensor(model, name).grad
        if gradient is not None:
            gradient.masked_fill_(~keep, 0)


def named_tensor(model: ModelGraph, name: str) -> Tensor:
    """A parameter or buffer by its qualified name."""
    path, _, own = name.rpartition(".")
    tensor: Tensor = getattr(model.module.get_submodule(path), own)
    return tensor
