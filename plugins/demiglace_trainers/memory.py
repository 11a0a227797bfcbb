"""What an optimizer knows of each parameter, kept from one training to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demiglace.errors import UsageError
from demiglace_trainers.options import Named

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from demiglace.graph import ModelGraph
    from demiglace.passes import Context

_KEY = "optimizer"


def remember(context: Context, model: ModelGraph, named: Named, optimizer: Optimizer) -> None:
    """Keep an optimizer for a later `continue`: its name, its options, its state by parameter name."""
    state = {
        name: dict(optimizer.state[parameter])
        for name, parameter in model.module.named_parameters()
        if parameter in optimizer.state
    }
    context.carry[_KEY] = {"name": named.name, "options": named.options, "state": state}


def recall(context: Context) -> Named:
    """The optimizer of the last training, by name and options.

    Raises:
        UsageError: when there was none.
    """
    if _KEY not in context.carry:
        raise UsageError(
            'optimizer = "continue", but no training came before', hint="name an optimizer, such as Adam"
        )
    kept = context.carry[_KEY]
    return Named.model_validate({"name": kept["name"], **kept["options"]})


def restore(context: Context, model: ModelGraph, optimizer: Optimizer) -> None:
    """Give a new optimizer the kept state; a parameter that was cut since starts afresh, with a warning."""
    state: Mapping[str, dict[str, Any]] = context.carry[_KEY]["state"]
    for name, parameter in model.module.named_parameters():
        if name not in state or not parameter.requires_grad:
            continue
        if not _fits(state[name], parameter):
            context.warn(f"{name}: the optimizer starts afresh, because its shape changed since")
            continue
        optimizer.state[parameter].update(_copied(state[name], parameter))


def _fits(state: Mapping[str, Any], parameter: nn.Parameter) -> bool:
    """Whether tensors of the parameter's rank have its shape; a factor has one entry along an axis."""
    shapes = [value.shape for value in state.values() if getattr(value, "dim", int)() == parameter.dim()]
    return all(size in {1, own} for shape in shapes for size, own in zip(shape, parameter.shape, strict=True))


def _copied(state: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """A copy with its moments on the parameter's device; a step count stays where it was."""
    return {
        key: value.clone().to(parameter.device if value.dim() else value.device)
        if hasattr(value, "clone")
        else value
        for key, value in state.items()
    }
