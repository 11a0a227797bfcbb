"""Whether participants fit the training they take part in, as far as it can be told before the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.engine.sources import model_source
from demiglace.errors import Fault, UsageError
from demiglace.graph import Example, ModelGraph
from demiglace.passes import Kind, moment_within
from demiglace.passes.contract import TEACHER
from demiglace.passes.schedule import moment_unit

if TYPE_CHECKING:
    from demiglace.engine.checked import Checked, SourceUse, Step

_STEPS = 1000  # in an epoch, where only epochs count


def schedule_faults(checked: Checked, trainer: Step) -> Iterator[Fault]:
    """Schedules that end before they begin, or after the training; what the data decides is not judged."""
    for participant in trainer.participants:
        schedule = participant.schedule
        length = None if schedule is None else _length(trainer, schedule.units())
        if schedule is None or length is None:
            continue
        try:
            schedule.points(*length)
        except UsageError as error:
            place = checked.recipe.place((*participant.path, "schedule"))
            for fault in error.faults:
                yield Fault(f"step {participant.id!r}: {fault.message}", place, fault.hint)


def moment_faults(checked: Checked, trainer: Step) -> Iterator[Fault]:
    """Moments of participants after the end of the training; what the data decides is not judged."""
    for participant in trainer.participants:
        for option, moment in participant.config.moments().items():
            length = _length(trainer, frozenset({moment_unit(moment)}))
            if length is None:
                continue
            try:
                moment_within(moment, *length, f"`{option}` comes")
            except UsageError as error:
                place = checked.recipe.place((*participant.path, option))
                for fault in error.faults:
                    yield Fault(f"step {participant.id!r}: {fault.message}", place, fault.hint)


def _length(trainer: Step, units: frozenset[str]) -> tuple[int, int] | None:
    """Steps of the training and of an epoch, true ones or such that `units` compare as with true ones."""
    epochs, steps = (getattr(trainer.config, name, None) for name in ("epochs", "steps"))
    if epochs is not None and "step" not in units:
        return epochs * _STEPS, _STEPS
    return (steps, steps) if steps is not None and "epoch" not in units else None


def teacher_faults(checked: Checked, trainer: Step, student: ModelGraph) -> Iterator[Fault]:
    """What participants refuse of the recipe's teacher, where its structure is known."""
    learning = [
        one
        for one in trainer.participants
        if one.spec.kind is Kind.PARTICIPANT and TEACHER in one.config.contract().needs
    ]
    teacher = _teacher(checked) if learning else None
    if teacher is None:
        return
    pair = _with_example(checked, checked.model, student), teacher
    for one in learning:
        for problem in checked.registry.implementation(one.spec)(one.config).preflight_teacher(*pair):
            place = checked.recipe.place((*one.path, *(problem.option or ("use",))))
            yield Fault(f"step {one.id!r}: {problem.message}", place, problem.hint)


def _teacher(checked: Checked) -> ModelGraph | None:
    """The teacher without its weights; one that a recipe trains as that recipe begins."""
    use = checked.teacher
    if use is not None and use.recipe is not None:
        checked, use = use.recipe, use.recipe.model
    source = model_source(checked, use)
    if source is None:
        return None
    return _with_example(checked, use, ModelGraph(source.structure()))


def _with_example(checked: Checked, use: SourceUse | None, model: ModelGraph) -> ModelGraph:
    """A network with zeros of its source's shape as example, where it was built; in evaluation mode."""
    import torch

    source = model_source(checked, use)
    shape = None if source is None else source.example_shape()
    device = next((one.device for one in model.module.parameters()), torch.device("meta"))
    example = None if shape is None else Example((torch.zeros(2, *shape, device=device),))
    return ModelGraph(model.module.eval(), example)
