"""The second half of planning: what needs the network's structure, and the plan in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demiglace.engine.check import check
from demiglace.engine.checked import Checked, Given, SourceUse, Step
from demiglace.engine.control import control_span, wants_control
from demiglace.engine.distance import distant_participants
from demiglace.engine.fitting import moment_faults, schedule_faults, teacher_faults
from demiglace.engine.gates import gate_words
from demiglace.engine.sources import model_source
from demiglace.errors import Fault, RecipeError
from demiglace.graph import ModelGraph, refuse_wrapped
from demiglace.passes import Kind, Pass, Targeted
from demiglace.passes.contract import DATA_FIXED
from demiglace.recipe import did_you_mean
from demiglace.recipe.selectors import unmatched

if TYPE_CHECKING:
    from torch import nn

    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """A recipe that was checked against the structure of its network."""

    checked: Checked
    #: Parameters of the model before the first pass; `None` when another recipe or a caller makes it later.
    parameters: int | None = None
    #: What is allowed and yet probably not meant.
    warnings: tuple[Fault, ...] = ()

    def lines(self) -> list[str]:
        """The plan as a tree in words: sources, steps with participants, gates."""
        return list(_lines(self))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        checked = self.checked
        return {
            "name": checked.recipe.name,
            "seed": checked.recipe.seed,
            "parameters": self.parameters,
            "steps": [_step_json(step) for step in checked.steps],
            "evaluate": [step.spec.name for step in checked.evaluations],
            "gates": [f"{name} {gate_words(gate)}" for name, gate in checked.recipe.gate.items()],
            "warnings": [str(warning) for warning in self.warnings],
        }


def plan(
    recipe: Recipe, registry: Registry, *, model: nn.Module | None = None, given: Given | None = None
) -> Plan:
    """Check a recipe, then check it against the network's structure.

    Raises:
        RecipeError: with every fault of the stage that found one.
        PluginError: when a plugin's rules of operators cannot be used.
        UsageError: when the caller's model is a wrapper that hides its layers.
    """
    checked = check(recipe, registry, given)
    registry.load_registered()
    graph = _structure(checked, model)
    faults = list(_transform_faults(checked.recipe))
    if not faults and not (given and given.splits):
        faults += _random_faults(checked)
    if graph is not None:
        faults += network_faults(checked, graph)
        faults += [] if faults else _training_faults(checked, graph)
    if faults:
        raise RecipeError(faults=faults)
    warnings = tuple(distant_participants(checked))
    if graph is None:
        return Plan(checked, warnings=warnings)
    return Plan(checked, sum(parameter.numel() for parameter in graph.module.parameters()), warnings)


def _structure(checked: Checked, model: nn.Module | None) -> ModelGraph | None:
    """The model without its weights, or `None` when it is not known before the run."""
    if model is not None:
        refuse_wrapped(model)
        return ModelGraph(model)
    source = model_source(checked, checked.model)
    return None if source is None else ModelGraph(source.structure())


def _transform_faults(recipe: Recipe) -> Iterator[Fault]:
    """What is wrong with `[data] transform`, which only torchvision can tell."""
    from demiglace.data import transform_faults

    for number, fault in transform_faults(recipe.data.transform if recipe.data else ()):
        yield fault.at(recipe.place(("data", "transform", number)))


def _training_faults(checked: Checked, graph: ModelGraph) -> Iterator[Fault]:
    """What does not fit together in a training, though each part of it is right."""
    for step in checked.steps:
        yield from schedule_faults(checked, step)
        yield from moment_faults(checked, step)
        yield from teacher_faults(checked, step, graph)


def _random_faults(checked: Checked) -> Iterator[Fault]:
    """Steps that need the same examples in each epoch where the recipe's transforms are random."""
    from demiglace.data import build_transform

    recipe = checked.recipe
    if recipe.data is None or not build_transform(recipe.data.transform, "train").random:
        return
    for step in _all_steps(checked.steps):
        if DATA_FIXED in step.config.contract().needs:
            yield Fault(
                f"step {step.id!r} needs {DATA_FIXED}, and the transforms of [data] change the training "
                "examples at random in each epoch",
                recipe.place((*step.path, "use")),
                "take the random transforms out of [data], or the option of this step that needs it: "
                "teacher outputs can be cached only for examples that come again",
            )


def network_faults(checked: Checked, graph: ModelGraph) -> list[Fault]:
    """What the steps refuse of a network: by its structure alone, or traced where it has an example."""
    steps = (*checked.steps, *checked.evaluations)
    return [fault for step in steps for fault in _step_faults(checked, step, graph)]


def _step_faults(checked: Checked, step: Step, graph: ModelGraph) -> Iterator[Fault]:
    """A model that is integers, to be trained; selectors that match nothing; else what the pass refuses."""
    from demiglace.quantization import untrainable

    reason = untrainable(graph.module) if step.spec.kind is Kind.TRAINER else ""
    if reason:
        place = checked.recipe.place((*step.path, "use"))
        hint = "start from the floating-point model, and quantize after the training"
        yield Fault(f"step {step.id!r}: the model cannot be trained: {reason}", place, hint)
    unmatched_selectors = list(_selector_faults(checked, step, graph))
    yield from unmatched_selectors
    problems = () if unmatched_selectors or reason else _pass_of(checked, step).preflight(graph)
    for problem in problems:
        place = checked.recipe.place((*step.path, *(problem.option or ("use",))))
        yield Fault(f"step {step.id!r}: {problem.message}", place, problem.hint)
    for participant in step.participants:
        yield from _step_faults(checked, participant, graph)


def _pass_of(checked: Checked, step: Step) -> Pass[Any]:
    """The pass as it will work: at a step of its own, or inside training."""
    if step.schedule is None:
        made: Pass[Any] = checked.registry.implementation(step.spec)(step.config)
        return made
    from demiglace.engine.taking_part import participant_of

    return participant_of(checked.registry, step)


def _selector_faults(checked: Checked, step: Step, graph: ModelGraph) -> Iterator[Fault]:
    if not isinstance(step.config, Targeted):
        return
    candidates = graph.candidates()
    for option in ("targets", "ignore"):
        selectors: list[str] = getattr(step.config, option)
        for selector in unmatched(selectors, candidates):
            place = checked.recipe.place((*step.path, option, selectors.index(selector)))
            known = (
                {type_ for one in candidates for type_ in one.types} if selector.startswith("type:") else None
            )
            names = known or {one.name for one in candidates}
            wanted = selector.partition(":")[2] if known else selector
            message = f"step {step.id!r}: {option} {selector!r} matches no layer and no parameter"
            yield Fault(message, place, did_you_mean(wanted, names))


def _lines(plan: Plan) -> Iterator[str]:
    checked = plan.checked
    yield f"{checked.recipe.name}  (seed {checked.recipe.seed})"
    size = "" if plan.parameters is None else f", {plan.parameters:,} parameters"
    yield f"  model    {_source_words(checked.model)}{size}"
    if checked.teacher is not None:
        yield f"  teacher  {_source_words(checked.teacher)}"
    yield f"  data     {_source_words(checked.data)}"
    width = max((len(step.id) for step in _all_steps(checked.steps)), default=0)
    compared = control_span(checked.steps)
    for number, step in enumerate(checked.steps, 1):
        trains = step.spec.kind is Kind.TRAINER and number - 1 in compared
        beside = ", and the control of a later step" if trains and not wants_control(step) else ""
        yield f"{number:3d}  {step.id:<{width}}  {step.spec.name}: {step.config.words()}{beside}"
        for participant in step.participants:
            when = f", {participant.schedule.words()}" if participant.schedule else ""
            words = f"{participant.spec.name}: {participant.config.words()}{when}"
            yield f"     └ {participant.id:<{width}}  {words}"
    if checked.evaluations:
        yield f"  after every step: {', '.join(step.spec.name for step in checked.evaluations)}"
    for name, gate in checked.recipe.gate.items():
        yield f"  gate: {name} {gate_words(gate)}"


def _all_steps(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from step.participants


def _source_words(use: SourceUse | None) -> str:
    if use is None:
        return "handed in by the caller"
    if use.spec is None or use.config is None:
        return f"the result of recipe {use.recipe.recipe.name if use.recipe else ''}"
    return f"{use.spec.name}: {use.config.words()}"


def _step_json(step: Step) -> dict[str, Any]:
    contract = step.contract()
    return {
        "id": step.id,
        "use": step.spec.name,
        "kind": str(step.spec.kind),
        "words": step.config.words(),
        "options": step.config.model_dump(mode="json"),
        "schedule": None if step.schedule is None else step.schedule.model_dump(mode="json"),
        "contract": {
            "needs": sorted(contract.needs),
            "gives": sorted(contract.gives),
            "destroys": sorted(contract.destroys),
        },
        "with": [_step_json(participant) for participant in step.participants],
    }
