"""Taking over the masks of `torch.nn.utils.prune` that arrive with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def adopt_masks(module: nn.Module) -> dict[str, Tensor]:
    """Turn a module's torch pruning into plain parameters and masks for `ModelGraph.masks`.

    Changes the module in place: `weight_orig` and `weight_mask` become the parameter `weight` again, its
    pruned elements zero, and the hook that multiplied them is gone. What the module computes stays the
    same. A parameter that several modules share gets the masks of all of them.

    Returns:
        By parameter name, boolean tensors of the parameter's shape, `True` where kept; empty when
        nothing was pruned.
    """
    import torch
    from torch.nn.utils import prune

    keeps: dict[int, Tensor] = {}
    with torch.no_grad():
        for holder, own in _pruned(module):
            keep = getattr(holder, f"{own}_mask") != 0
            prune.remove(holder, own)
            parameter = id(getattr(holder, own))
            keeps[parameter] = keeps[parameter] & keep if parameter in keeps else keep
    return {name: keeps[id(one)] for name, one in module.named_parameters() if id(one) in keeps}


def _pruned(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules with torch's pruning hooks, and which of their parameters each hook prunes."""
    from torch.nn.utils.prune import BasePruningMethod

    return [
        (holder, hook._tensor_name)
        for holder in module.modules()
        for hook in holder._forward_pre_hooks.values()
        if isinstance(hook, BasePruningMethod)
    ]
