"""What a structural pruner's selectors take, and what is left alone and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from demiglace.errors import GraphError
from demiglace.passes import Context, Problem, Targeted

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_TOLD = 2
"""Reasons that a refusal names; `demiglace graph` lists all."""


@dataclass(frozen=True)
class Selection(Generic[T_co]):
    """The structures that selectors take, and by name why others that they name are left alone."""

    taken: Sequence[T_co]
    left_alone: Mapping[str, str]


class Selector(Protocol[T_co]):
    """A pruner of structures of one kind."""

    #: What a structure is called in messages.
    units: str

    @property
    def config(self) -> Targeted:
        """Its options."""

    def selection(self, model: ModelGraph) -> Selection[T_co]:
        """What the selectors take; raises `GraphError` when the model cannot be traced."""


def taken(pruner: Selector[T], model: ModelGraph, context: Context) -> Sequence[T]:
    """The structures that the selectors take; what they name and cannot go is reported.

    Raises:
        GraphError: when there is none, or the model cannot be traced.
    """
    found = pruner.selection(model)
    for name, reason in found.left_alone.items():
        context.leave_alone(name, reason)
    if not found.taken:
        problem = _nothing(pruner, found)
        raise GraphError(problem.message, hint=problem.hint)
    return found.taken


def problems(pruner: Selector[T], model: ModelGraph) -> Iterator[Problem]:
    """What keeps a pruner from its work, told before the run; without an example nothing can be told."""
    if model.example is None:
        return
    try:
        found = pruner.selection(model)
    except GraphError as error:
        fault = error.faults[0]
        yield Problem(fault.message, ("use",), fault.hint)
        return
    if not found.taken:
        yield _nothing(pruner, found)


def _nothing(pruner: Selector[T], found: Selection[T]) -> Problem:
    config = pruner.config
    reasons = [f"{name}: {reason}" for name, reason in found.left_alone.items()]
    why = f" ({'; '.join(reasons[:_TOLD])})" if reasons else ""
    return Problem(
        f"{config.selector_words()} select no {pruner.units} that can be removed{why}",
        ("targets",) if "targets" in config.model_fields_set else ("use",),
        "`demiglace graph RECIPE` lists what can be removed, and why the rest cannot",
    )
