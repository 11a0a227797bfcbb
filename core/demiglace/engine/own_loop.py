"""`demiglace.participants`: what stands under `[[pass.with]]` of a recipe, in a caller's own loop."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from demiglace.engine.checked import Given
from demiglace.engine.environment import derive_seed
from demiglace.engine.events import Listener
from demiglace.engine.plan import plan
from demiglace.engine.prepare import adopt, example_of, open_dataset
from demiglace.engine.run import Execution
from demiglace.engine.taking_part import participant_of
from demiglace.errors import UsageError
from demiglace.passes import Context, Kind, Position
from demiglace.training.session import Session

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from demiglace.data import Data
    from demiglace.engine.checked import Checked, Step
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe

_ALL_SPLITS = frozenset({"train", "calibration", "validation", "test"})


def session(
    recipe: Recipe,
    registry: Registry,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    steps_per_epoch: int | None = None,
    data: Data | None = None,
    example_inputs: object = None,
) -> Session:
    """The participants of a recipe's one train pass, as a session; see `demiglace.participants`."""
    splits = _ALL_SPLITS if data is None else frozenset(data.splits)
    planned = plan(recipe, registry, model=model, given=Given.of(model, splits))
    checked = planned.checked
    step = _train_pass(checked)
    opened = data or open_dataset(checked.data, registry, recipe)
    graph = adopt(model)
    graph.example = example_of(example_inputs, opened, None, batch=2)
    # The teacher's recipe runs, or its weights are fetched, when a participant first asks for it.
    execution = Execution(planned, Listener(), _never, model=model, data=opened)
    context = Context(
        seed=derive_seed(recipe.seed, step.id),
        device=next(model.parameters()).device,
        data=opened,
        teacher=None if checked.teacher is None else lambda: execution.teacher,
        on_warning=lambda text: warnings.warn(text, stacklevel=2),
    )
    participants = [participant_of(registry, one) for one in step.participants]
    at = _length(step.config, steps_per_epoch, opened)
    return Session(graph, context, at, participants, optimizer)


def _train_pass(checked: Checked) -> Step:
    """The one pass of the recipe.

    Raises:
        UsageError: when there is another pass, or nothing takes part.
    """
    steps = checked.steps
    if len(steps) != 1 or steps[0].spec.kind is not Kind.TRAINER or not steps[0].participants:
        found = ", ".join(step.spec.name for step in steps) or "no pass"
        raise UsageError(
            f"a loop of one's own needs a recipe of one train pass with participants; this one has {found}",
            hint="keep the one [[pass]] with its [[pass.with]] tables; run the others with demiglace.run",
        )
    return steps[0]


def _length(config: Any, steps_per_epoch: int | None, data: Data | None) -> Position:
    """How long the caller's training is, from the train pass's `epochs` or `steps`.

    Raises:
        UsageError: when nothing tells how long an epoch is.
    """
    epochs, steps = getattr(config, "epochs", None), getattr(config, "steps", None)
    if steps_per_epoch is None and data is not None:
        batches = data.split("train").count(data.batch_size)
        accumulate = getattr(config, "accumulate", 1)
        steps_per_epoch = None if batches is None else -(-batches // accumulate)
    if steps_per_epoch is None and epochs is not None:
        raise UsageError(
            f"the recipe trains for {epochs} epochs, and nothing tells how many steps an epoch has",
            hint="give steps_per_epoch=len(loader), or write `steps` in the recipe",
        )
    if steps is None:
        steps = (epochs or 0) * (steps_per_epoch or 0)
    if steps < 1 or (steps_per_epoch or 1) < 1:
        raise UsageError("the training has no step", hint="give steps_per_epoch=len(loader), at least 1")
    return Position(steps, steps_per_epoch or steps)


def _never() -> None:
    """Nobody interrupts."""
