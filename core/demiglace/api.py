"""What a program calls: `run`, `plan`, `check`, `participants` and `load`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.engine.check import check as check_recipe
from demiglace.engine.checked import Checked, Given
from demiglace.engine.events import Listener
from demiglace.errors import UsageError
from demiglace.passes import Kind, allowing_code
from demiglace.plugins import Registry, discover, structures
from demiglace.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from demiglace.data import Batch, Data
    from demiglace.engine.plan import Plan
    from demiglace.engine.result import Result
    from demiglace.training.session import Session

RecipeLike = str | Path | Mapping[str, Any] | Recipe
"""A path to a TOML file, `recipe:NAME` for a shipped one, a dict of the same form, or a `Recipe`."""


def check(recipe: RecipeLike, *, overrides: Sequence[str] | None = None) -> Checked:
    """Check a recipe's syntax, names, options, contracts and order, without torch.

    Args:
        recipe: what to check.
        overrides: `key.path=value` settings, as with `--set`.

    Raises:
        RecipeError: with every fault of the stage that found one.
    """
    registry = discover()
    return check_recipe(_loaded(recipe, overrides, registry), registry)


def plan(
    recipe: RecipeLike,
    *,
    model: nn.Module | None = None,
    data: Data | Mapping[str, Iterable[object]] | Iterable[object] | None = None,
    overrides: Sequence[str] | None = None,
) -> Plan:
    """Check a recipe against the structure of its network too; see `run` for the arguments.

    Raises:
        RecipeError: with every fault of the stage that found one.
    """
    from demiglace.data import Data
    from demiglace.engine.plan import plan as make_plan

    registry = discover()
    handed = None if data is None else Data.of(data)
    return make_plan(_loaded(recipe, overrides, registry), registry, model=model, given=_given(model, handed))


def run(
    recipe: RecipeLike,
    *,
    model: nn.Module | None = None,
    data: Data | Mapping[str, Iterable[object]] | Iterable[object] | None = None,
    example_inputs: object = None,
    out: str | Path | None = None,
    overrides: Sequence[str] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    allow_code: Sequence[str | Path] = (),
    registry: Registry | None = None,
    listener: Listener | None = None,
    check_interrupt: Callable[[], None] | None = None,
) -> Result:
    """Run a recipe and return the compressed model with everything that was measured.

    Args:
        recipe: a path, `recipe:NAME`, a dict, or a `Recipe`.
        model: a module to work on in place, instead of the recipe's `[model]`.
        data: splits by name (`train`, `calibration`, `validation`, `test`), each an iterable of batches
            that can be walked more than once, or one such iterable for all; instead of `[data]`.
            A batch is a tensor, `(inputs, labels)`, or a dict of keyword inputs with `labels`.
        example_inputs: a tensor, a tuple of positional inputs or a dict of keyword inputs of the model,
            for tracing and counting; by default taken from the data.
        out: a new or empty directory for `run.json`, the log and the artifact; `None` writes nothing.
        overrides: `key.path=value` settings, as with `--set`.
        step: `step(module, batch)` calls the module and returns the scalar loss of a batch, in place of the
            `loss` of every train pass; inputs are in `batch.args` and `batch.kwargs`, labels in
            `batch.labels`. Participants see the outputs of the module's last call in it.
        allow_code: files and folders that the source `python` may load code from.
        registry: the plugins to use; by default all that are installed.
        listener: hears of steps, progress and warnings.
        check_interrupt: called between steps and batches; may raise to stop the run.

    Raises:
        DemiglaceError: of the class that tells what is wrong.

    Example:
        >>> result = demiglace.run("recipe.toml", model=net, data={"train": loader, "test": test_loader})
    """
    from demiglace.data import Data
    from demiglace.engine.plan import plan as make_plan
    from demiglace.engine.run import Execution

    registry = discover() if registry is None else registry
    handed = None if data is None else Data.of(data)
    loaded = _loaded(recipe, overrides, registry)
    with allowing_code(allow_code):
        planned = make_plan(loaded, registry, model=model, given=_given(model, handed))
        if step is not None and not any(one.spec.kind is Kind.TRAINER for one in planned.checked.steps):
            raise UsageError("step= was given, and no pass trains", hint="add a train pass to the recipe")
        execution = Execution(
            planned,
            model=model,
            data=handed,
            example_inputs=example_inputs,
            out=None if out is None else Path(out),
            step=step,
            listener=listener or Listener(),
            check_interrupt=check_interrupt or _never,
        )
        return execution.run()


def participants(
    recipe: RecipeLike,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    steps_per_epoch: int | None = None,
    data: Data | Mapping[str, Iterable[object]] | Iterable[object] | None = None,
    example_inputs: object = None,
    overrides: Sequence[str] | None = None,
    registry: Registry | None = None,
) -> Session:
    """What a recipe has under `[[pass.with]]`, at work in a training loop of one's own.

    Args:
        recipe: with one train pass, whose `epochs` or `steps` say how long the loop is.
        model: what the loop trains; changed in place.
        optimizer: what steps it; made before, from the model's parameters.
        steps_per_epoch: optimizer steps of one epoch; by default counted from the data.
        data: as for `run`, for participants that need it.
        example_inputs: as for `run`, for participants that trace the model.
        overrides: `key.path=value` settings, as with `--set`.
        registry: the plugins to use; by default all that are installed.

    Raises:
        DemiglaceError: of the class that tells what is wrong.

    Example:
        >>> with demiglace.participants("recipe.toml", net, optimizer, steps_per_epoch=60) as session:
        ...     for inputs, labels in loader:
        ...         optimizer.zero_grad()
        ...         outputs = net(inputs)
        ...         session.loss((inputs, labels), outputs, own=F.cross_entropy(outputs, labels)).backward()
        ...         optimizer.step()
    """
    from demiglace.data import Data
    from demiglace.engine.own_loop import session

    registry = discover() if registry is None else registry
    return session(
        _loaded(recipe, overrides, registry),
        registry,
        model,
        optimizer,
        steps_per_epoch=steps_per_epoch,
        data=None if data is None else Data.of(data),
        example_inputs=example_inputs,
    )


def load(
    path: str | Path,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    *,
    allow_code: Sequence[str | Path] = (),
) -> nn.Module:
    """The module of a run directory, artifact or packed file, ready to use: no data, no pickle, no network.

    Args:
        path: a run directory, the artifact's own, or a packed file (`.dgz`).
        model: for a model that a caller handed in, a module of the same structure, or what builds one.
        allow_code: files and folders that the source `python` may load code from.

    Raises:
        ArtifactError: when the files are damaged or do not fit the module.
    """
    from demiglace.artifact import open_artifact
    from demiglace.engine.folder import MODEL

    folder = Path(path)
    if (folder / MODEL).is_dir():
        folder /= MODEL
    with allowing_code(allow_code):
        return open_artifact(folder, model=model, resolve=structures(discover())).module


def _never() -> None:
    """Nobody interrupts."""


def _loaded(recipe: RecipeLike, overrides: Sequence[str] | None, registry: Registry) -> Recipe:
    return load_recipe(recipe, overrides=tuple(overrides or ()), find=registry.recipe)


def _given(model: nn.Module | None, data: Data | None) -> Given:
    splits = None if data is None else frozenset(data.splits)
    return Given(splits=splits) if model is None else Given.of(model, splits)
