"""Masks held through training: whatever an optimizer does, masked weights are zero after its step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from demiglace.graph import ModelGraph


def hold_masks(optimizer: Optimizer, model: ModelGraph) -> RemovableHandle:
    """Zero the masked weights after each step of `optimizer`, until the handle is removed.

    It acts after momentum, weight decay and the moments of Adam, in any training loop. Masks that the
    model gets later are held too.
    """

    def after_step(*_: Any) -> None:
        for name, keep in model.masks.items():
            # A product with 0 and 1 as bytes is many times faster than masked_fill_ and needs no copy.
            named_tensor(model, name).detach().mul_(keep.view(torch.int8))

    return optimizer.register_step_post_hook(after_step)


def zero_masked(model: ModelGraph) -> None:
    """Write the zeros of every mask into its tensor, where NaN and infinity stand too."""
    for name, keep in model.masks.items():
        named_tensor(model, name).detach().masked_fill_(~keep, 0)


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
