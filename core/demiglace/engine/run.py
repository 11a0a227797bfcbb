"""Executing a plan from the first weight to the last file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.artifact import GraphOrigin, SourceOrigin, save
from demiglace.data import Data
from demiglace.data.cast import cast
from demiglace.engine.clock import Clock
from demiglace.engine.control import control_span
from demiglace.engine.environment import environment
from demiglace.engine.events import Listener
from demiglace.engine.folder import RunFolder
from demiglace.engine.gates import judge_all
from demiglace.engine.plan import Plan, network_faults
from demiglace.engine.prepare import (
    adopt,
    check_finite,
    check_fit,
    device_of,
    dtype_of,
    example_of,
    open_dataset,
    open_model,
)
from demiglace.engine.record import RunRecord
from demiglace.engine.result import Result
from demiglace.engine.sources import model_source
from demiglace.engine.step import Workshop, evaluate, evaluate_control, new_record, run_step
from demiglace.errors import ArtifactError, Interrupted, RecipeError, UsageError, told_of
from demiglace.passes import Kind, Metric, allowed_code
from demiglace.passes.contract import BASELINE
from demiglace.recipe import ORIGINAL
from demiglace.training import connected

if TYPE_CHECKING:
    from torch import nn

    from demiglace.engine.checked import SourceUse, Step
    from demiglace.graph import ModelGraph
    from demiglace.passes.context import LossStep


@dataclass
class Execution:
    """One execution of a plan."""

    plan: Plan
    listener: Listener
    check_interrupt: Callable[[], None]
    model: nn.Module | None = None
    data: Data | None = None
    example_inputs: object = None
    out: Path | None = None
    step: LossStep | None = None
    #: Where the model comes from, as files that leave the run keep it; by default this run.
    provenance: Mapping[str, Any] | None = None
    _clock: Clock = field(default_factory=Clock, init=False)
    _opened: dict[str, object] = field(default_factory=dict, init=False)

    def run(self) -> Result:
        """Run every step, judge the gates, save the model; of several processes only the first writes.

        Raises:
            DemiglaceError: of the class that tells what failed; `run.json` says it too.
        """
        import torch

        # What a caller does under inference mode is to be calibrated and trained all the same.
        with torch.inference_mode(False), connected(self.plan.checked.recipe.run.processes) as rank:
            if rank > 0:
                self.out, self.listener = None, Listener()
            return self._execute(leads=rank == 0)

    def _execute(self, *, leads: bool) -> Result:
        folder = None if self.out is None else RunFolder(self.out)
        record = RunRecord(self.plan.checked.recipe.resolved(), environment())
        try:
            result = self._run(record, folder, leads=leads)
        except BaseException as error:
            self._close(record, folder, error)
            raise
        self._close(record, folder, None if result.passed else "gate missed")
        return result

    def _close(
        self, record: RunRecord, folder: RunFolder | None, outcome: BaseException | str | None
    ) -> None:
        """Write down how the run ended."""
        failed = isinstance(outcome, BaseException)
        record.status = "done" if outcome is None else str(outcome)
        if failed:
            record.status = (
                "interrupted" if isinstance(outcome, Interrupted | KeyboardInterrupt) else "failed"
            )
            record.error = str(outcome) or type(outcome).__name__
            for step in record.steps[-1:]:
                step.status = record.status if step.status == "running" else step.status
        total = self._clock.total()
        record.seconds, record.cpu_seconds = total.seconds, total.cpu_seconds
        record.engine_cpu_seconds = self._clock.own()
        # What went wrong first is what the user must hear of, not that it could not be written down.
        with suppress(ArtifactError, OSError) if failed else nullcontext():
            _write_end(folder, record)

    def _run(self, record: RunRecord, folder: RunFolder | None, *, leads: bool) -> Result:
        recipe = self.plan.checked.recipe
        if not self.plan.checked.steps:
            raise UsageError("the recipe has no pass", hint="add a [[pass]] table")
        shop = self._workshop(folder)
        self._refuse(shop.model)
        steps = (*self.plan.checked.steps, *self.plan.checked.evaluations)
        if any(BASELINE in step.contract().wants for step in steps):
            shop.baseline = shop.model.copy()
        record.data = _data_json(shop.data)
        record.opened, record.original = self._opened, shop.footprint
        shop.provenance = dict(self.provenance or _provenance(record, shop))
        for warning in self.plan.warnings:
            shop.listener.warning("plan", str(warning))
        if folder is not None:
            folder.write(record)
        self._measure_original(shop)
        compared = control_span(self.plan.checked.steps)
        at: dict[str, Mapping[str, Metric]] = {ORIGINAL: shop.metrics | _footprint_metrics(shop)}
        for number, step in enumerate(self.plan.checked.steps, 1):
            self.check_interrupt()
            shop.keep_original(self.plan.checked.steps[number - 1 :])
            shop.keep_control(wanted=number - 1 in compared)
            if leads or step.spec.kind is not Kind.EXPORTER:
                self._run_step(shop, step, number, record, folder)
            at[step.id] = shop.metrics | _footprint_metrics(shop)
        final = shop.metrics | _footprint_metrics(shop)
        verdicts = tuple(judge_all(recipe.gate, final, at))
        record.gates = [verdict.to_json() for verdict in verdicts]
        if folder is not None:
            self._save(shop, folder, record)
        return Result(shop.model, self.out, record, verdicts, allowed_code())

    def _refuse(self, model: ModelGraph) -> None:
        """With an example the network can be traced: what cannot be cut is told before hours of training."""
        if faults := network_faults(self.plan.checked, model):
            raise RecipeError(faults=faults)

    def _run_step(
        self, shop: Workshop, step: Step, number: int, record: RunRecord, folder: RunFolder | None
    ) -> None:
        self.listener.step_started(step.id, number, len(self.plan.checked.steps))
        done = new_record(shop, step)
        record.steps.append(done)
        with told_of(f"step {step.id!r}", self.plan.checked.recipe.place((*step.path, "use"))):
            run_step(shop, step, done, number)
        evaluators = self._evaluators_after(step)
        done.metrics = shop.metrics = evaluate(shop, evaluators, done.metrics)
        if step.spec.kind is Kind.TRAINER:
            done.control = evaluate_control(shop, evaluators)
        done.status = "done"
        if folder is not None:
            folder.step_finished(step.id, done)
            folder.write(record)
        self.listener.step_finished(step.id, done)

    def _measure_original(self, shop: Workshop) -> None:
        """The metrics before the first pass, where the recipe evaluates or a gate compares with them."""
        checked = self.plan.checked
        needed = {name for name, gate in checked.recipe.gate.items() if gate.against == ORIGINAL}
        wanted = [one for one in checked.evaluators() if needed & set(one.config.metrics())]
        shop.metrics = evaluate(shop, [*checked.evaluations, *wanted], {})

    def _evaluators_after(self, step: Step) -> list[Step]:
        """Those of `evaluate`, and those that a gate needs at this step."""
        checked = self.plan.checked
        last = step is checked.steps[-1]
        needed = {name for name, gate in checked.recipe.gate.items() if last or gate.against == step.id}
        wanted = [one for one in checked.evaluators() if needed & set(one.config.metrics())]
        return [*checked.evaluations, *wanted]

    def _workshop(self, folder: RunFolder | None) -> Workshop:
        checked = self.plan.checked
        device = device_of(checked.recipe)
        model = self._model(checked.model, "model")
        with self._clock.others():
            data = self.data or open_dataset(checked.data, checked.registry, checked.recipe)
        dtype = dtype_of(checked.recipe)
        if data is not None and dtype is not None:
            data = cast(data, dtype)
        source = model_source(checked, checked.model)
        # Tracing wants a batch of two: a one is no sign of a free batch size.
        model.example = example_of(self.example_inputs, data, source, batch=2)
        model.to(device, dtype)
        check_finite(model)
        check_fit(model, checked.recipe)
        model.module.eval()
        shop = Workshop(
            registry=checked.registry,
            model=model,
            data=data,
            device=device,
            seed=checked.recipe.seed,
            listener=_Both(folder, self.listener) if folder else self.listener,
            check_interrupt=self.check_interrupt,
            clock=self._clock,
            folder=folder,
            step=self.step,
            sample=example_of(self.example_inputs, data, source, batch=1),
            teacher=None if checked.teacher is None else lambda: self.teacher,
        )
        shop.survey()
        return shop

    def _model(self, use: SourceUse | None, role: str) -> ModelGraph:
        checked = self.plan.checked
        if role == "model" and self.model is not None:
            return adopt(self.model)
        if use is None:
            raise UsageError(
                "the recipe has no [model], and none was handed in", hint="demiglace.run(recipe, model=...)"
            )
        source = model_source(checked, use)
        if source is None:
            return self._other_recipe(use)
        with self._clock.others():
            model = open_model(source, use, checked.recipe, role)
            if role == "model":
                self._opened = dict(source.figures())
        return model

    @cached_property
    def teacher(self) -> ModelGraph:
        """The recipe's teacher, opened or trained when first asked for."""
        teacher = self._model(self.plan.checked.teacher, "teacher")
        teacher.to(device_of(self.plan.checked.recipe), None)
        teacher.module.eval().requires_grad_(False)
        return teacher

    def _other_recipe(self, use: SourceUse) -> ModelGraph:
        """The model that another recipe makes, run first in a directory of its own."""
        # By the table's name: the run directory's own `model` is the artifact.
        role = str(use.path[0])
        if use.recipe is None:
            raise UsageError(
                f"[{role}] names neither a source nor a recipe", hint="give it `use` or `recipe`"
            )
        inner = Execution(
            Plan(use.recipe),
            data=None if use.recipe.data is not None else self.data,
            out=None if self.out is None else self.out / role,
            listener=self.listener,
            check_interrupt=self.check_interrupt,
        )
        return inner.run().graph

    def _save(self, shop: Workshop, folder: RunFolder, record: RunRecord) -> None:
        """The model as an artifact."""
        from demiglace.graph.plain import portable

        save(
            shop.model,
            folder.model,
            origin=shop.model.origin or GraphOrigin(),
            transform=() if shop.data is None else shop.data.transform,
            provenance=shop.provenance,
            graph=portable(shop.model),
        )


def _write_end(folder: RunFolder | None, record: RunRecord) -> None:
    if folder is not None:
        folder.log(f"run {record.status}" + (f": {record.error}" if record.error else ""))
        folder.write(record)
        folder.close()


def _data_json(data: Data | None) -> dict[str, Any]:
    if data is None:
        return {}
    return {
        "fingerprint": data.fingerprint,
        "splits": {name: split.examples() for name, split in data.splits.items()},
        "transform": [dict(table) for table in data.transform],
    }


def _footprint_metrics(shop: Workshop) -> dict[str, Metric]:
    """The engine's own figures as metrics, for gates."""
    if shop.footprint is None:
        return {}
    return {name: Metric(value) for name, value in shop.footprint.figures().items()}


def _provenance(record: RunRecord, shop: Workshop) -> dict[str, Any]:
    own: dict[str, Any] = {"recipe": record.recipe, "environment": record.environment}
    if shop.footprint is not None:
        own |= {"parameters": shop.footprint.parameters}
    return own | _needed_to_open(shop)


def _needed_to_open(shop: Workshop) -> dict[str, str]:
    """The distribution that builds the model's structure, where that is another than demiglace."""
    origin = shop.model.origin
    if not isinstance(origin, SourceOrigin) or origin.name not in shop.registry.model_sources:
        return {}
    [plugin] = shop.registry.model_sources.claimants(origin.name)
    other = plugin.distribution != "demiglace"
    return {"source": f"{plugin.distribution}=={plugin.version}"} if other else {}


class _Both(Listener):
    """Passes what happens on to the run's log and to whoever watches."""

    def __init__(self, folder: RunFolder, listener: Listener) -> None:
        self.folder, self.listener = folder, listener

    def progress(self, step: str, done: int, total: int | None, text: str) -> None:
        self.listener.progress(step, done, total, text)

    def warning(self, step: str, text: str) -> None:
        self.folder.warning(step, text)
        self.listener.warning(step, text)
