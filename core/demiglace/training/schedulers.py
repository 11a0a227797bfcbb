"""Schedulers of the learning rate by their names in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import nn
from torch.optim import lr_scheduler

from demiglace.passes import Position, Problem
from demiglace.training.named import plain, problems
from demiglace.training.pacing import Pacer

if TYPE_CHECKING:
    from torch.optim import Optimizer

Per: TypeAlias = Literal["step", "epoch"]

SCHEDULERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(lr_scheduler, name)
    for name in (
        "ConstantLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CyclicLR",
        "ExponentialLR",
        "LinearLR",
        "MultiStepLR",
        "OneCycleLR",
        "PolynomialLR",
        "ReduceLROnPlateau",
        "StepLR",
    )
}
"""The schedulers that need no code and no other scheduler."""

_LENGTHS = {
    "CosineAnnealingLR": "T_max",
    "LinearLR": "total_iters",
    "OneCycleLR": "total_steps",
    "PolynomialLR": "total_iters",
}
_BY_STEP = {"CyclicLR", "OneCycleLR"}


def scheduler_problems(name: str, options: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with a scheduler of that name with these options."""
    found = list(
        problems("scheduler", name, options, SCHEDULERS, ("optimizer", "last_epoch"), ("T_max", "max_lr"))
    )
    yield from found
    if found:
        return
    probe = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    try:
        named_pacer(name, options)(probe, Position(100, 10))
    except (ValueError, TypeError, RuntimeError) as error:
        yield Problem(f"scheduler {name}: {error}", ("scheduler",))


def named_pacer(
    name: str, options: Mapping[str, object], *, by_epochs: bool = False
) -> Callable[[Optimizer, Position], Pacer]:
    """What makes the scheduler of that name for an optimizer and a training.

    A schedule that has a length (`T_max`, `total_steps`, `total_iters`) and is given none spans the whole
    training, step by step. One with a length, or without any, counts as torch's own documentation has it:
    epochs, except for `OneCycleLR` and `CyclicLR`. `max_lr` defaults to the optimizer's own rate.

    Args:
        name: one of `SCHEDULERS`.
        options: its options.
        by_epochs: whether the training is measured in epochs; one measured in steps has only steps.
    """
    length = _LENGTHS.get(name)
    spans = length is not None and not {length, "epochs"} & set(options)
    by_step = name in _BY_STEP or spans or not by_epochs
    unit: Per = "step" if by_step and name != "ReduceLROnPlateau" else "epoch"

    def make(optimizer: Optimizer, at: Position) -> Pacer:
        given = plain(options)
        if spans and length is not None:
            given[length] = at.steps
        if name in _BY_STEP:
            given.setdefault("max_lr", [group["lr"] for group in optimizer.param_groups])
        return Pacer(SCHEDULERS[name](optimizer, **given), unit)

    return make
