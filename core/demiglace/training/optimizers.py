"""Optimizers by their names in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from demiglace.passes import Problem
from demiglace.training.named import plain, problems, refuse

_UNFIT = {"LBFGS", "SparseAdam", "Optimizer"}  # a closure, sparse gradients, abstract

OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    name: one
    for name, one in vars(torch.optim).items()
    if isinstance(one, type) and issubclass(one, Optimizer) and name not in _UNFIT
}
"""The optimizers that step on dense gradients without a closure."""


def optimizer_problems(
    name: str, options: Mapping[str, object], parameters: Sequence[nn.Parameter]
) -> Iterator[Problem]:
    """What is wrong with an optimizer of that name with these options for these parameters."""
    found = list(problems("optimizer", name, options, OPTIMIZERS, ("params",)))
    yield from found
    if found:
        return
    try:
        OPTIMIZERS[name](list(parameters), **plain(options))
    except (ValueError, TypeError, RuntimeError) as error:
        yield Problem(f"optimizer {name}: {error}", ("optimizer",))


def named_optimizer(name: str, options: Mapping[str, object]) -> Callable[[list[nn.Parameter]], Optimizer]:
    """What makes the optimizer of that name for parameters.

    Raises:
        UsageError: (when called) for an unknown name or option, or parameters that it refuses.
    """

    def make(parameters: list[nn.Parameter]) -> Optimizer:
        refuse(optimizer_problems(name, options, parameters))
        optimizer: Optimizer = OPTIMIZERS[name](parameters, **plain(options))
        return optimizer

    return make
