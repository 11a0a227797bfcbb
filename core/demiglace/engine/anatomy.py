"""What can be removed from a recipe's network, and what stays and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from demiglace.engine.check import check
from demiglace.engine.prepare import check_fit, example_of, open_dataset
from demiglace.engine.sources import model_source
from demiglace.errors import GraphError, UsageError
from demiglace.graph import ModelGraph

if TYPE_CHECKING:
    from demiglace.graph import Group
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """A group: units that can be removed, each with all that is tied to it."""

    name: str
    #: `channels`, or `heads` where a unit is a head of attention.
    kind: str
    units: int
    #: Parameters that hold its units, which would go with all of them.
    parameters: int
    #: The layers that make, read, and only follow the units: `produced`, `consumed`, `tied`.
    layers: dict[str, list[str]]


@dataclass(frozen=True)
class Stuck:
    """A dimension of a weight that makes channels and cannot be cut, wholly or in part."""

    tensor: str
    dim: int
    reason: str


@dataclass(frozen=True)
class Limb:
    """A residual branch, which can go as a whole or says why it stays."""

    name: str
    #: Parameters that would go with it; none where it stays.
    parameters: int
    #: The layers in it, the outermost alone.
    layers: list[str]
    #: Why it stays; empty when it can go.
    reason: str = ""


@dataclass(frozen=True)
class Anatomy:
    """A network as structural pruners see it."""

    name: str
    parameters: int
    groups: tuple[Part, ...]
    frozen: tuple[Stuck, ...]
    branches: tuple[Limb, ...]


def anatomy(recipe: Recipe, registry: Registry) -> Anatomy:
    """Build a recipe's network without its weights, trace it, and find its groups and branches.

    Raises:
        RecipeError: when the recipe is wrong.
        UsageError: when its model comes from no source, or no example input is known.
        GraphError: when the model cannot be exported.
    """
    model = _model(recipe, registry)
    frozen = (Stuck(tensor, dim, reason) for (tensor, dim), reason in model.traced.frozen.items())
    return Anatomy(
        recipe.name,
        sum(parameter.numel() for parameter in model.module.parameters()),
        tuple(_part(group, model) for group in model.groups),
        tuple(frozen),
        tuple(_limbs(model)),
    )


def _limbs(model: ModelGraph) -> Iterator[Limb]:
    try:
        known = model.branches
    except GraphError as error:
        yield Limb(".", 0, [], f"branches cannot be found: {error.faults[0].message}")
        return
    sizes = {name: one.numel() for name, one in model.module.named_parameters()}
    for branch in known.found:
        inner = {one for one in branch.layers for other in branch.layers if one.startswith(f"{other}.")}
        layers = [one for one in branch.layers if one not in inner]
        yield Limb(branch.name, sum(sizes[name] for name in branch.parameters), layers)
    for name, reason in known.stuck.items():
        yield Limb(name, 0, [], reason)


def _model(recipe: Recipe, registry: Registry) -> ModelGraph:
    checked = check(recipe, registry)
    registry.load_registered()
    source = model_source(checked, checked.model)
    if source is None:
        raise UsageError(
            "the recipe's model is made by another recipe, which has to run first",
            hint='look at that recipe, or at the result: [model] use = "artifact"',
        )
    data = open_dataset(checked.data, registry, recipe)
    model = ModelGraph(source.build().eval(), example_of(None, data, source, batch=2))
    check_fit(model, recipe)
    return model


def _part(group: Group, model: ModelGraph) -> Part:
    layers = {role: group.layers(role) for role in ("produced", "consumed", "tied")}
    layers["tied"] = [name for name in layers["tied"] if name not in layers["produced"]]
    return Part(
        group.name,
        "heads" if group.heads else "channels",
        group.units,
        _parameters(group, model),
        layers,
    )


def _parameters(group: Group, model: ModelGraph) -> int:
    """How many elements of parameters belong to units, each counted once."""
    parameters = dict(model.module.named_parameters())
    gone: dict[str, dict[int, set[int]]] = {}
    for one in group.slices:
        gone.setdefault(one.tensor, {}).setdefault(one.dim, set()).update(one.index.flatten().tolist())
    total = 0
    for tensor in gone.keys() & parameters.keys():
        shape = parameters[tensor].shape
        left = prod(size - len(gone[tensor].get(dim, ())) for dim, size in enumerate(shape))
        total += shape.numel() - left
    return total
