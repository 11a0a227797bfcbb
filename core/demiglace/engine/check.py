"""The first half of planning: everything about a recipe that can be checked without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demiglace.engine.checked import Checked, Given, Path, SourceUse, Step
from demiglace.engine.order import order_faults
from demiglace.errors import Fault, PluginError, RecipeError
from demiglace.passes import Kind, SourceSpec
from demiglace.passes.schedule import Schedule
from demiglace.plugins import Registry, requirement_faults
from demiglace.recipe import NetworkTable, PassTable, Recipe, UseTable, in_order, validate


def check(recipe: Recipe, registry: Registry, given: Given | None = None) -> Checked:
    """Resolve names, validate options, and walk the contracts; imports no torch.

    Raises:
        RecipeError: with every fault found; the order of passes is judged once all options are right.
    """
    given = Given(later=True) if given is None else given
    checker = _Checker(recipe, registry, given)
    checked = Checked(
        recipe,
        registry,
        steps=tuple(checker.steps(recipe.passes, ("pass",))),
        evaluations=tuple(checker.evaluations(recipe.evaluate)),
        model=checker.model(recipe),
        teacher=checker.network(recipe.teacher, ("teacher",)),
        data=checker.source(recipe.data, ("data",), registry.data_sources),
    )
    checker.envelope(checked)
    if not checker.faults:
        checker.faults += order_faults(checked, given)
    if checker.faults:
        raise RecipeError(faults=in_order(checker.faults))
    return checked


@dataclass
class _Checker:
    recipe: Recipe
    registry: Registry
    given: Given
    faults: list[Fault] = field(default_factory=list)

    def fault(self, message: str, path: Path, hint: str | None = None, of: str = "value") -> None:
        self.faults.append(Fault(message, self.recipe.place(path, of), hint))  # type: ignore[arg-type]

    def envelope(self, checked: Checked) -> None:
        """What concerns the recipe as a whole."""
        self.faults += requirement_faults(self.recipe, self.registry)
        absent = self.recipe.model is None and self.recipe.student is None
        if absent and not self.given.model and not self.given.later:
            self.fault(
                "the recipe has no [model], and none was handed in",
                (),
                "add a [model] table, or call demiglace.run(recipe, model=...)",
            )
        if self.recipe.student and self.recipe.model:
            self.fault(
                "both [model] and [student] name the model to work on",
                ("student",),
                "keep one of them: [student] is [model] in a recipe with a [teacher]",
                "header",
            )

    def steps(self, tables: Sequence[PassTable], path: Path) -> Iterator[Step]:
        for index, table in enumerate(tables):
            step = self.step(table, (*path, index))
            if step is not None:
                yield step

    def evaluations(self, tables: Sequence[UseTable]) -> Iterator[Step]:
        """What measures the model after every step."""
        for index, table in enumerate(tables):
            path: Path = ("evaluate", index)
            spec = self.named(table.use, self.registry.passes, path, "pass")
            if spec is None:
                continue
            if spec.kind is not Kind.EVALUATOR:
                self.fault(f"{spec.name!r} is no evaluator but {_a(spec.kind)}", (*path, "use"))
            config = self.options(spec.config, table.options, path)
            if config is not None:
                yield Step(table.use, spec, config, path)

    def step(self, table: PassTable, path: Path) -> Step | None:
        """One pass with its participants, or `None` when it has a fault."""
        participants = [self.participant(one, (*path, "with", i)) for i, one in enumerate(table.participants)]
        spec = self.named(table.use, self.registry.passes, path, "pass")
        if spec is None:
            return None
        if spec.kind is Kind.PARTICIPANT:
            self.fault(
                f"{spec.name!r} acts inside training and cannot stand alone",
                (*path, "use"),
                "put it in [[pass.with]] under a train pass",
            )
        if table.participants and spec.kind is not Kind.TRAINER:
            self.fault(
                f"{spec.name!r} does not train, so nothing can take part in it",
                (*path, "with", 0),
                of="header",
            )
        config = self.options(spec.config, table.options, path, PassTable.key_names())
        if config is None:
            return None
        inside = tuple(one for one in participants if one is not None)
        return Step(table.id, spec, config, path, table.allow_noop, participants=inside)

    def participant(self, table: PassTable, path: Path) -> Step | None:
        spec = self.named(table.use, self.registry.passes, path, "pass")
        if spec is None:
            return None
        if spec.kind not in {Kind.EDITOR, Kind.PARTICIPANT}:
            self.fault(f"{spec.name!r} is {_a(spec.kind)} and cannot take part in training", (*path, "use"))
        options = dict(table.options)
        schedule = None
        if spec.kind is Kind.EDITOR and "schedule" in options:
            schedule = self.options(Schedule, options.pop("schedule"), (*path, "schedule"))
        known = [*PassTable.key_names(), *(["schedule"] if spec.kind is Kind.EDITOR else [])]
        config = self.options(spec.config, options, path, known)
        if config is None:
            return None
        if spec.kind is Kind.EDITOR and schedule is None:
            # What has no amount to raise acts once.
            gradual = getattr(config, "amount", None) is not None
            schedule = Schedule() if gradual else Schedule(shape="one_shot")
        return Step(table.id, spec, config, path, table.allow_noop, schedule=schedule)

    def model(self, recipe: Recipe) -> SourceUse | None:
        """The network that the passes work on."""
        if recipe.student is not None:
            return self.network(recipe.student, ("student",))
        return self.source(recipe.model, ("model",), self.registry.model_sources)

    def network(self, table: NetworkTable | None, path: Path) -> SourceUse | None:
        """A teacher or a student: from a source, or from a recipe that is checked with this one."""
        if table is None or table.recipe is None:
            return self.source(table, path, self.registry.model_sources)
        try:
            return SourceUse(path, recipe=check(table.recipe, self.registry, self.given.without_model()))
        except RecipeError as error:
            self.faults += error.faults
            return None

    def source(
        self, table: UseTable | NetworkTable | None, path: Path, known: Mapping[str, SourceSpec]
    ) -> SourceUse | None:
        """The resolved source of a table, or `None` without one or with a fault."""
        if table is None or table.use is None:
            return None
        kind = "data source" if path == ("data",) else "model source"
        spec = self.named(table.use, known, path, kind)
        known_keys = type(table).key_names()
        config = None if spec is None else self.options(spec.config, table.options, path, known_keys)
        return None if spec is None or config is None else SourceUse(path, spec, config, table.options)

    def named(self, name: str, known: Mapping[str, Any], path: Path, what: str) -> Any:
        """The spec of that name, or `None` and a fault."""
        try:
            found = known.get(name)
        except PluginError as error:  # two plugins claim the name
            self.faults += [fault.at(self.recipe.place((*path, "use"))) for fault in error.faults]
            return None
        if found is None:
            hint = self.registry.absent_hint(name, known)
            self.fault(f"there is no {what} {name!r}", (*path, "use"), hint)
        return found

    def options(
        self, model: type[Any], options: Mapping[str, Any], path: Path, known: Sequence[str] = ()
    ) -> Any:
        """The validated options, or `None` and faults at their places."""
        try:
            place, registry = self.recipe.place, self.registry
            return validate(model, options, place=place, prefix=path, known=known, context=registry)
        except RecipeError as error:
            self.faults += error.faults
            return None


def _a(kind: Kind) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
