"""Layers inside torch's fused encoder layers, which read weights instead of calling layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def must_be_called(layer: nn.Module) -> None:
    """Have a layer called where torch would read its weight: it calls layers that have a hook.

    The hook does nothing.
    """
    layer.register_forward_pre_hook(_nothing)


def may_be_read(layer: nn.Module) -> None:
    """Take back `must_be_called`."""
    hooks = layer._forward_pre_hooks
    for number in [number for number, hook in hooks.items() if hook is _nothing]:
        del hooks[number]


def _nothing(layer: nn.Module, inputs: object) -> None:
    """A hook that does nothing."""


def each(layer: Callable[[Tensor], Tensor], nested: Tensor) -> Tensor:
    """A layer on every sequence of a nested tensor, in which torch's encoders hand on padded batches."""
    return torch.nested.as_nested_tensor([layer(one) for one in nested.unbind()])
