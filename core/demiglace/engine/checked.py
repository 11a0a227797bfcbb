"""A recipe with every name resolved and every option validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from demiglace.passes import Config, Contract, Kind, PassSpec, SourceSpec
from demiglace.passes.contract import ORIGINAL, PRODUCTS_INT8
from demiglace.passes.schedule import Schedule
from demiglace.plugins import Registry
from demiglace.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a recipe: keys and indices from the top."""


@dataclass(frozen=True)
class Step:
    """A pass of the recipe with its resolved plugin and validated options."""

    id: str
    spec: PassSpec
    config: Config
    #: Where its table stands in the recipe.
    path: Path
    allow_noop: bool = False
    schedule: Schedule | None = None
    participants: tuple[Step, ...] = ()

    def contract(self) -> Contract:
        """What the step and its participants together need, give and destroy."""
        own = self.config.contract()
        for participant in self.participants:
            own |= participant.config.contract()
        # There is an original to compare with once an editor changed the model, until it is trained again.
        original = frozenset({ORIGINAL})
        if self.spec.kind is Kind.EDITOR and ORIGINAL not in own.needs:
            return replace(own, gives=own.gives | original)
        return replace(own, destroys=own.destroys | original) if self.spec.kind is Kind.TRAINER else own


@dataclass(frozen=True)
class SourceUse:
    """Where a network or the data comes from, resolved: a plugin's source, or another recipe to run first."""

    #: Where its table stands in the recipe.
    path: Path
    spec: SourceSpec | None = None
    config: Config | None = None
    #: The options as the recipe has them, from which an artifact builds the structure again.
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Checked | None = None


@dataclass(frozen=True)
class Given:
    """What a caller in Python hands in beside the recipe."""

    model: bool = False
    #: Names of the splits handed in; `None`: no data was.
    splits: frozenset[str] | None = None
    #: Whether checking is all that happens: then a recipe without `[model]` is not at fault.
    later: bool = False
    #: What holds of the model beside what holds of every one.
    facts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: nn.Module, splits: frozenset[str] | None) -> Given:
        """A model, with what passes may build on in it."""
        from demiglace.quantization import multiplying_integers

        return cls(True, splits, facts=frozenset({PRODUCTS_INT8} if multiplying_integers(model) else ()))

    def without_model(self) -> Given:
        """The same for a recipe inside the recipe: it brings its own model."""
        return replace(self, model=False, facts=frozenset())


@dataclass(frozen=True)
class Checked:
    """A recipe whose every name, option and order is right."""

    recipe: Recipe
    registry: Registry
    steps: tuple[Step, ...]
    evaluations: tuple[Step, ...]
    model: SourceUse | None = None
    teacher: SourceUse | None = None
    data: SourceUse | None = None

    def evaluators(self) -> Iterator[Step]:
        """Evaluators of the recipe: those of `evaluate`, then those among its passes."""
        yield from self.evaluations
        yield from (step for step in self.steps if step.spec.kind is Kind.EVALUATOR)
