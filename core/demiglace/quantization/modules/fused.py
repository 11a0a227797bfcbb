"""What is called with a layer: hooks, which keep torch's fused encoder layers from reading its weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn


def must_be_called(layer: nn.Module) -> None:
    """Have a layer called where torch would read its weight: it calls layers that have a hook.

    The hook does nothing. The layer that it was made of keeps its own hooks.
    """
    layer._forward_pre_hooks = layer._forward_pre_hooks.copy()
    layer.register_forward_pre_hook(_nothing)


def may_be_read(layer: nn.Module) -> None:
    """Take back `must_be_called`."""
    hooks = layer._forward_pre_hooks
    if _nothing in hooks.values():
        layer._forward_pre_hooks = OrderedDict(one for one in hooks.items() if one[1] is not _nothing)


def _nothing(layer: nn.Module, inputs: object) -> None:
    """A hook that does nothing."""


def keep_hooks(new: nn.Module, old: nn.Module) -> None:
    """Have a layer call what was registered to be called with the one whose place it takes."""
    for name, own in vars(old).items():
        if name.startswith("_forward_"):
            new.__dict__[name] = own


def each(layer: Callable[[Tensor], Tensor], nested: Tensor) -> Tensor:
    """A layer on every sequence of a nested tensor, in which torch's encoders hand on padded batches."""
    return torch.nested.as_nested_tensor([layer(one) for one in nested.unbind()])
