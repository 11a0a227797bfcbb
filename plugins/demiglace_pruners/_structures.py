"""What all pruners of structures share: options, the choice of groups, ranking, and edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from demiglace.errors import GraphError, UsageError
from demiglace.passes import Asked, Context, Contract, CriterionSpec, Editor, Problem, Share, Targeted
from demiglace.plugins import Registry, discover
from demiglace.recipe import did_you_mean
from demiglace.recipe.selectors import selected
from demiglace_pruners._selection import Selection, problems, taken

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.calibration import Statistics
    from demiglace.graph import Cut, Group, ModelGraph, SetAttr

_HALVINGS = 12
"""Steps of bisection to a share of parameters or MACs: to 1/4096 of the units."""


class StructuralConfig(Targeted):
    """Options of a pruner that removes structures."""

    amount: Share
    """Share to remove, 0 to 1; what it is a share of, `of` says. A group never loses its last unit."""
    of: Literal["units", "parameters", "macs"] = "units"
    """What `amount` is a share of: units of the groups that are pruned, or parameters or
    multiply-accumulates of the whole model, reached by removing as large a share of units as it takes."""
    scope: Literal["local", "global", "isomorphic"] = "local"
    """Which units compete: those of one group, so that each loses the same share; those of all groups;
    those of groups of one shape. Scores of several groups compete relative to their group's mean."""
    importance: Annotated[str, Field(json_schema_extra={"names_of": "criteria"})] = "l2"
    """By what units are ranked: a criterion of this or another plugin; `demiglace plugins` lists them. From
    weights alone: `l1` or `l2` norm of the weights that produce a unit, the scale of its `batchnorm`, or
    `random`. From calibration data: `wanda` (the weights that produce a unit
    times the norms of their inputs) and, where layers read it, `activation_mean`, `activation_variance` and
    `apoz` (how often it is not zero behind a ReLU). With labels: `taylor` (the loss's first-order change)."""
    min_kept: Annotated[int, Field(ge=1)] = 1
    """Units that every group keeps at least."""
    round_to: Annotated[int, Field(ge=1)] = 1
    """The units that a group keeps are rounded up to a multiple of this."""
    steps: Annotated[int, Field(ge=1, le=100)] = 1
    """In how many equal steps the amount is reached; before each the units that are left are ranked anew, on
    the model without those that are gone."""
    samples: Annotated[int, Field(ge=1)] = 1024
    """Calibration examples to look at, where `importance` needs any."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples in a calibration batch."""

    #: Where the criterion is found.
    _registry: Registry = PrivateAttr()

    @field_validator("importance")
    @classmethod
    def _known_criterion(cls, name: str, info: ValidationInfo) -> str:
        criteria = _registry(info.context).criteria
        # A name that two plugins claim raises what to do about it.
        if criteria.get(name) is None:
            hint = did_you_mean(name, criteria, "criteria")
            raise ValueError(f"no plugin gives a criterion {name!r}" + (f"; {hint}" if hint else ""))
        return name

    def model_post_init(self, context: object) -> None:
        self._registry = _registry(context)

    @property
    def criterion(self) -> CriterionSpec:
        """What was announced of the criterion."""
        return self._registry.criteria[self.importance]

    def score(self) -> Callable[[Group, Statistics], Tensor | None]:
        """The criterion's function; imports its plugin's code."""
        return self._registry.criterion(self.importance)

    def contract(self) -> Contract:
        data = {"nothing": (), "inputs": ("data.calibration",), "changes": ("data.calibration", "labels")}
        needs = ("weights.float", *data[self.criterion.gathers])
        return Contract.of(needs=needs, gives=("channels.removed",))

    def _phrase(self, units: str) -> str:
        share = f"{100 * self.amount:.6g} %"
        where = {
            "local": "of each group",
            "global": "of all groups together",
            "isomorphic": "of all groups of one shape together",
        }[self.scope]
        order = "at random" if self.importance == "random" else f"those of the smallest {self.importance}"
        if self.criterion.gathers != "nothing":
            order += f" on {self.samples} examples"
        if self.steps > 1:
            order += f", in {self.steps} steps, each ranked anew"
        if self.of == "units":
            return f"remove {share} of the {units} {where}, {order}"
        what = "parameters" if self.of == "parameters" else "multiply-accumulates"
        return f"remove {units} until {share} of the model's {what} are gone, ranked {where}, {order}"


class StructuralEditor(Editor[StructuralConfig]):
    """Ranks units of groups and removes the least important."""

    #: What a unit is called in messages.
    units = "units"

    def takes(self, group: Group, model: ModelGraph) -> bool:
        """Whether this pass works on a group, selectors aside."""
        return True

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        yield from problems(self, model)

    def unscheduled(self) -> Problem | None:
        if self.config.of == "units":
            return None
        message = (
            f"a schedule raises the share of {self.units} removed, and these options say of = "
            f"{self.config.of!r}"
        )
        return Problem(message, ("of",), 'write of = "units", or make the pass a step of its own')

    def edits(
        self, model: ModelGraph, context: Context, amount: float | None = None
    ) -> Iterator[Cut | SetAttr]:
        from demiglace.graph import removal_edits

        if amount is not None and (problem := self.unscheduled()):
            raise UsageError(problem.message, hint=problem.hint)
        groups = taken(self, model, context)
        scored = self._scores(model, groups, context)
        # A schedule has steps of its own.
        steps = self.config.steps if amount is None else 1
        share = self.config.amount if amount is None else amount
        removed = self._removed(model, scored, share / steps)
        for step in range(2, steps + 1):
            scored = self._scored_anew(model, [group for group, _ in scored], removed, context)
            removed = self._removed(model, scored, share * step / steps)
        chosen = [(group, units) for (group, _), units in zip(scored, removed, strict=True)]
        edits = removal_edits(model, chosen)
        self._report(model, context, chosen, edits)
        self._say_what_limits_keep(model, context, chosen, share)
        yield from edits

    def selection(self, model: ModelGraph) -> Selection[Group]:
        """The groups that the selectors take.

        Raises:
            GraphError: when the model cannot be traced.
        """
        candidates = model.candidates()
        chosen = {one.name for one in selected(candidates, self.config.targets, self.config.ignore)}
        ignored = {one.name for one in selected(candidates, self.config.ignore)}
        left = {
            tensor: reason
            for (tensor, _), reason in model.traced.frozen.items()
            if tensor in chosen or _layer(tensor) in chosen
        }
        taken = []
        for group in model.groups:
            if not self.takes(group, model):
                continue
            names = _names(group)
            if names & ignored:
                left[group.name] = f"tied to {min(names & ignored)}, which is ignored"
            elif names & chosen:
                taken.append(group)
        return Selection(taken, left)

    def _scores(
        self, model: ModelGraph, groups: Sequence[Group], context: Context
    ) -> list[tuple[Group, Tensor]]:
        score, statistics = self.config.score(), self._statistics(model, groups, context)
        scored = []
        for group in groups:
            found = score(group, statistics)
            if found is None:
                context.leave_alone(
                    group.name, f"the criterion {self.config.importance!r} says nothing about it"
                )
            elif not bool(found.isfinite().all()):
                raise GraphError(
                    f"the scores of {group.name!r} are not finite: weights or data hold NaN or infinity",
                    hint="look at the training before this pass, or name the layer under `ignore`",
                )
            else:
                scored.append((group, found))
        return scored

    def _scored_anew(
        self, model: ModelGraph, groups: Sequence[Group], removed: Sequence[Tensor], context: Context
    ) -> list[tuple[Group, Tensor]]:
        """The groups with the scores that their units have where others are gone already."""
        from demiglace_pruners._steps import Survivors

        left = Survivors(model, groups, removed)
        return list(zip(groups, left.scores(self._scores(left.model, left.groups, context)), strict=True))

    def _statistics(self, model: ModelGraph, groups: Sequence[Group], context: Context) -> Statistics:
        from demiglace.calibration import Statistics

        if self.config.criterion.gathers == "nothing":
            return Statistics.of(model, context.rng())
        from demiglace.calibration import calibration_batches
        from demiglace_pruners.importance.gathering import gathered

        batches = calibration_batches(context, self.config.samples, self.config.batch_size)
        return gathered(self.config.criterion.gathers, model, groups, batches, context)

    def _removed(
        self, model: ModelGraph, scored: Sequence[tuple[Group, Tensor]], amount: float
    ) -> list[Tensor]:
        """The units that go, by group."""
        if self.config.of == "units":
            return self._ranked(scored, amount)
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._share(model, scored, middle) < amount:
                low = middle
            else:
                high = middle
        return self._ranked(scored, high)

    def _share(self, model: ModelGraph, scored: Sequence[tuple[Group, Tensor]], share: float) -> float:
        """The share of the model's parameters or MACs that removing a share of units removes."""
        units = self._ranked(scored, share)
        return self._share_of(model, list(zip([group for group, _ in scored], units, strict=True)))

    def _share_of(self, model: ModelGraph, removed: Sequence[tuple[Group, Tensor]]) -> float:
        """The share of the model's parameters or MACs that removing these units removes."""
        from demiglace.graph import macs_after, parameters_after, removal_of

        figures = []
        for chosen in ([], removed):
            removal, _ = removal_of(model, chosen)
            counts = sum(parameters_after(model, removal).values())
            figures.append(counts if self.config.of == "parameters" else macs_after(removal))
        return 1 - figures[1] / max(1, figures[0])

    def _ranked(self, scored: Sequence[tuple[Group, Tensor]], share: float) -> list[Tensor]:
        from demiglace_pruners._ranking import Limits, by_group, together

        limits = Limits(self.config.min_kept, self.config.round_to)
        if self.config.scope == "local":
            return by_group([scores for _, scores in scored], share, limits)
        pools: dict[object, list[int]] = {}
        for number, (group, _) in enumerate(scored):
            key = (group.shape, group.heads) if self.config.scope == "isomorphic" else None
            pools.setdefault(key, []).append(number)
        removed: dict[int, Tensor] = {}
        for numbers in pools.values():
            units = together([scored[number][1] for number in numbers], share, limits)
            removed.update(zip(numbers, units, strict=True))
        return [removed[number] for number in range(len(scored))]

    def _report(
        self,
        model: ModelGraph,
        context: Context,
        chosen: Sequence[tuple[Group, Tensor]],
        edits: Sequence[Cut | SetAttr],
    ) -> None:
        from demiglace.graph import Cut

        left = {(one.tensor, one.dim): len(one.kept) for one in edits if isinstance(one, Cut)}
        touched = {tensor for tensor, _ in left}
        shapes = {name: one.shape for name, one in model.module.named_parameters() if name in touched}
        parameters = sum(
            prod(left.get((name, dim), size) for dim, size in enumerate(shape))
            for name, shape in shapes.items()
        )
        context.ask(Asked("parameters", parameters, over=tuple(shapes)))
        context.figures["groups"] = {
            f"{number}:{group.name}": {"units": group.units, "removed": len(units)}
            for number, (group, units) in enumerate(chosen)
        }
        for group, units in chosen:
            if (
                self.config.amount
                and self.config.of == "units"
                and self.config.scope == "local"
                and not len(units)
            ):
                context.leave_alone(group.name, f"{group.units} {self.units} are as few as it may keep")

    def _say_what_limits_keep(
        self, model: ModelGraph, context: Context, chosen: Sequence[tuple[Group, Tensor]], share: float
    ) -> None:
        """Warn where less was removed than asked because a group keeps a unit, or `min_kept` of them."""
        held = [group for group, units in chosen if 0 < group.units - len(units) <= self.config.min_kept]
        names = f"{held[0].name!r}" + (f" and {len(held) - 1} more" if len(held) > 1 else "") if held else ""
        if self.config.of == "units":
            total, gone = sum(group.units for group, _ in chosen), sum(len(units) for _, units in chosen)
            reached = gone / max(1, total)
            short = [group for group, units in chosen if round(share * group.units) > len(units)]
            missed = bool(short) if self.config.scope == "local" else gone < round(share * total)
        else:
            reached = self._share_of(model, chosen)
            missed = reached < share
        if missed and held:
            context.warn(
                f"{100 * reached:.3g} % is removed where {100 * share:.6g} % was asked: {names} would keep "
                f"less than {self.config.min_kept} of its {self.units}"
            )


def _registry(context: object) -> Registry:
    """The plugins that a recipe is checked with; those installed, where options are made in Python."""
    return context if isinstance(context, Registry) else discover()


def _layer(tensor: str) -> str:
    from demiglace.graph import holder

    return holder(tensor)


def _names(group: Group) -> set[str]:
    """The tensors that produce a group's units, or all where nothing does, and their layers."""
    slices = [one for one in group.slices if one.role == "produced"] or list(group.slices)
    return {one.tensor for one in slices} | {_layer(one.tensor) for one in slices}
