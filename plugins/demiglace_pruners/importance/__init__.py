"""Importance: how much each unit of a group matters, one criterion a file.

A criterion is a pure function of a group and of what is known about the model; it gives one score per
unit, larger for what matters more, or `None` where it says nothing about the group. Its module and its
function have its name.
"""

from __future__ import annotations

from demiglace.passes import CriterionSpec


def _spec(name: str, gathers: str = "nothing") -> CriterionSpec:
    return CriterionSpec(name, f"{__name__}.{name}:{name}", gathers)  # type: ignore[arg-type]


CRITERIA = [
    *map(_spec, ("l1", "l2", "batchnorm", "random")),
    *(_spec(name, "inputs") for name in ("activation_mean", "activation_variance", "apoz", "wanda")),
    _spec("taylor", "changes"),
]
