"""Taking over a caller's model: the masks of `torch.nn.utils.prune`, tensors of inference mode, wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.errors import UsageError

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


def adopt_tensors(module: nn.Module) -> None:
    """Put ordinary tensors in the places of those made in inference mode, which nothing can be learned of."""
    import torch

    made: dict[int, Tensor] = {}

    def ordinary(tensor: Tensor) -> Tensor:
        copied = tensor.detach().clone()
        learned = isinstance(tensor, torch.nn.Parameter)
        return torch.nn.Parameter(copied, tensor.requires_grad) if learned else copied

    for holder in module.modules():
        for held in (holder._parameters, holder._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    held[name] = made.setdefault(id(tensor), ordinary(tensor))  # type: ignore[assignment]


def refuse_wrapped(module: nn.Module) -> None:
    """Refuse wrappers whose calls go past what hooks see, or that cannot run without their devices.

    Raises:
        UsageError: for `torch.compile`, `DataParallel` and `DistributedDataParallel`, in the model too.
    """
    from torch import nn

    for name, each in module.named_modules():
        where = f"layer {name!r}" if name else "the model"
        if "_orig_mod" in each._modules or each._compiled_call_impl is not None:
            hint = "hand in the model before it is compiled, and compile the result"
            raise UsageError(f"{where} is compiled, and its layers cannot be watched or exchanged", hint=hint)
        if isinstance(each, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise UsageError(f"{where} is wrapped in {type(each).__name__}", hint="hand in its `module`")


def _pruned(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules with torch's pruning hooks, and which of their parameters each hook prunes."""
    from torch.nn.utils.prune import BasePruningMethod

    return [
        (holder, hook._tensor_name)
        for holder in module.modules()
        for hook in holder._forward_pre_hooks.values()
        if isinstance(hook, BasePruningMethod)
    ]
