"""Importance: how much each unit of a group matters, one criterion a file.

A criterion is a pure function of a group and of what is known about the model; it gives one score per
unit, larger for what matters more, or `None` where it says nothing about the group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import Group
    from demiglace_pruners.importance.statistics import Statistics

Criterion: TypeAlias = "Callable[[Group, Statistics], Tensor | None]"
Name: TypeAlias = Literal[
    "l1",
    "l2",
    "batchnorm",
    "random",
    "taylor",
    "activation_mean",
    "activation_variance",
    "apoz",
    "wanda",
]

GATHERED: Mapping[Name, Literal["inputs", "changes"]] = {
    "taylor": "changes",
    "activation_mean": "inputs",
    "activation_variance": "inputs",
    "apoz": "inputs",
    "wanda": "inputs",
}
"""Which of `Statistics` a criterion needs a calibration run for; the others look at weights alone."""


def criterion(name: Name) -> Criterion:
    """The function of a criterion, whose module and function have its name."""
    return getattr(import_module(f"{__name__}.{name}"), name)


def needs(name: Name) -> tuple[str, ...]:
    """The facts about the data that a criterion depends on."""
    if name not in GATHERED:
        return ()
    return ("data.calibration", "labels") if GATHERED[name] == "changes" else ("data.calibration",)
