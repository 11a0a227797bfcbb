"""Running one step: the pass at work, then what the engine checks and measures of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from demiglace.artifact import digest_beside
from demiglace.engine.clock import Clock
from demiglace.engine.environment import derive_seed
from demiglace.engine.events import Listener
from demiglace.engine.record import StepRecord
from demiglace.errors import DemiglaceError, PassFailed
from demiglace.graph import apply_verified
from demiglace.measure import Footprint, first_nonfinite, measure
from demiglace.passes import Asked, Context, Control, Kind, Metric
from demiglace.passes.contract import ORIGINAL

if TYPE_CHECKING:
    import torch

    from demiglace.data import Data
    from demiglace.engine.checked import Step
    from demiglace.engine.folder import RunFolder
    from demiglace.graph import Example, ModelGraph
    from demiglace.passes.context import LossStep
    from demiglace.plugins import Registry


@dataclass
class Workshop:
    """What every step of a run shares. A step sees of it only what `Context` shows."""

    registry: Registry
    model: ModelGraph
    data: Data | None
    device: torch.device
    seed: int
    listener: Listener
    check_interrupt: Callable[[], None]
    clock: Clock
    folder: RunFolder | None = None
    #: The recipe, the environment and the original's parameters, as an artifact keeps them.
    provenance: dict[str, Any] = field(default_factory=dict)
    teacher: Callable[[], ModelGraph] | None = None
    #: The model before the first editor since the last training, while a later step needs it.
    original: ModelGraph | None = None
    #: The model before the first pass, if a step wants it.
    baseline: ModelGraph | None = None
    #: The uncompressed model, while a coming step wants to be compared with it.
    control: Control | None = None
    #: The caller's own loss of a batch.
    step: LossStep | None = None
    #: The model's digest and figures as the last step left them.
    digest: str = ""
    footprint: Footprint | None = None
    #: What MACs are counted on: one example where the engine chose it.
    sample: Example | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    #: What a step leaves for later ones beside the model, such as an optimizer's state.
    carry: dict[str, Any] = field(default_factory=dict)

    def survey(self) -> None:
        """Measure the model as it is now."""
        self.digest, self.footprint = digest_beside(self.model, lambda: measure(self.model, self.sample))

    def keep_original(self, steps: Iterable[Step]) -> None:
        """Copy the model before it is edited, if a step up to the next training needs it."""
        contracts = [step.contract() for step in _until_trained(steps)]
        if not any(ORIGINAL in contract.needs for contract in contracts):
            self.original = None
        elif self.original is None:
            self.original = self.model.copy()

    def keep_control(self, *, wanted: bool) -> None:
        """Copy the model as it is, if it is to be compared with and there is no copy yet."""
        if not wanted:
            self.control = None
        elif self.control is None:
            self.control = Control(self.model.copy(), dict(self.carry))

    def context(self, step: Step, record: StepRecord | None = None) -> Context:
        """The surroundings of one step, reporting into its record if it has one."""

        def warn(text: str) -> None:
            if record is not None:
                record.warnings.append(text)
            self.listener.warning(step.id, text)

        return Context(
            seed=derive_seed(self.seed, step.id),
            device=self.device,
            data=self.data,
            provenance=self.provenance,
            teacher=self.teacher,
            original=self.original,
            baseline=self.baseline,
            control=self.control,
            step=self.step,
            carry=self.carry,
            left_alone={} if record is None else record.left_alone,
            figures={} if record is None else record.figures,
            notes=[] if record is None else record.notes,
            on_progress=lambda done, total, text: self.listener.progress(step.id, done, total, text),
            on_warning=warn,
            check_interrupt=self.check_interrupt,
        )


def _until_trained(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps up to the next training, that one included."""
    for step in steps:
        yield step
        if step.spec.kind is Kind.TRAINER:
            return


def run_step(shop: Workshop, step: Step, record: StepRecord, number: int) -> None:
    """Run one pass, then measure what it did and compare with what was asked, all into its record.

    Raises:
        PassFailed: when the pass raises, changes nothing, breaks a promise, or leaves NaN or infinity.
        Interrupted: when the run was asked to stop.
    """
    context = shop.context(step, record)
    if shop.folder is not None and step.spec.kind in {Kind.EXPORTER, Kind.TRAINER}:
        context.folder = shop.folder.step(number, step.id)
        if step.spec.kind is Kind.EXPORTER:
            context.folder.mkdir(parents=True)
    try:
        with shop.clock.others() as span:
            _WORK[step.spec.kind](shop, step, context, record)
    except DemiglaceError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise PassFailed(text, step=step.id, plugin=record.plugin) from error
    record.seconds, record.cpu_seconds = span.seconds, span.cpu_seconds
    _inspect(shop, step, context, record)


def new_record(shop: Workshop, step: Step) -> StepRecord:
    """The record of a step that is about to run."""
    contract = step.contract()
    return StepRecord(
        id=step.id,
        use=step.spec.name,
        kind=str(step.spec.kind),
        plugin=str(shop.registry.plugin_of(step.spec)),
        words=step.config.words(),
        options=step.config.model_dump(mode="json"),
        contract={
            "needs": sorted(contract.needs),
            "gives": sorted(contract.gives),
            "destroys": sorted(contract.destroys),
        },
        seed=derive_seed(shop.seed, step.id),
        participants=[_participant_json(one) for one in step.participants],
        input=shop.digest,
        before=shop.footprint,
        metrics_before=dict(shop.metrics),
    )


def _participant_json(step: Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "use": step.spec.name,
        "words": step.config.words(),
        "options": step.config.model_dump(mode="json"),
        "schedule": None if step.schedule is None else step.schedule.model_dump(mode="json"),
    }


def _edit(shop: Workshop, step: Step, context: Context, record: StepRecord) -> None:
    editor = shop.registry.implementation(step.spec)(step.config)
    edits = list(editor.edits(shop.model, context))
    record.edits = dict(Counter(type(edit).__name__ for edit in edits))
    transaction, verified = apply_verified(shop.model, edits)
    record.verified = None if verified is None else verified.to_json()
    transaction.commit()


def _train(shop: Workshop, step: Step, context: Context, record: StepRecord) -> None:
    from demiglace.engine.taking_part import participant_of

    participants = [participant_of(shop.registry, one) for one in step.participants]
    trainer = shop.registry.implementation(step.spec)(step.config)
    # Participants may have put figures of their own there.
    record.figures |= trainer.train(shop.model, context, participants)
    shop.original = None


def _evaluate(shop: Workshop, step: Step, context: Context, record: StepRecord) -> None:
    evaluator = shop.registry.implementation(step.spec)(step.config)
    record.metrics |= evaluator.measure(shop.model, context)


def _export(shop: Workshop, step: Step, context: Context, record: StepRecord) -> None:
    if context.folder is None:
        raise PassFailed(
            "an exporter needs a run directory", step=step.id, hint="give --out DIR (out= in Python)"
        )
    exporter = shop.registry.implementation(step.spec)(step.config)
    record.figures = dict(exporter.write(shop.model, context.folder, context))


_WORK: dict[Kind, Callable[[Workshop, Step, Context, StepRecord], None]] = {
    Kind.EDITOR: _edit,
    Kind.TRAINER: _train,
    Kind.EVALUATOR: _evaluate,
    Kind.EXPORTER: _export,
}


def _inspect(shop: Workshop, step: Step, context: Context, record: StepRecord) -> None:
    """What the engine finds out by itself, whatever the pass says."""
    spoilt = first_nonfinite(shop.model)
    if spoilt is not None:
        raise PassFailed(f"left NaN or infinity in {spoilt!r}", step=step.id, plugin=record.plugin)
    for name, metric in record.metrics.items():
        if metric.value != metric.value or metric.value in {float("inf"), float("-inf")}:
            raise PassFailed(f"metric {name!r} is {metric.value}", step=step.id, plugin=record.plugin)
    shop.survey()
    record.output, record.after = shop.digest, shop.footprint
    _compare_change(step, record)
    record.asked = [_compare_asked(shop, step, asked) for asked in context.asked]
    record.metrics = shop.metrics | record.metrics if not _changes(step) else record.metrics


def _changes(step: Step) -> bool:
    return step.spec.kind in {Kind.EDITOR, Kind.TRAINER}


def _compare_change(step: Step, record: StepRecord) -> None:
    changed = record.input != record.output
    if _changes(step) and not changed and not step.allow_noop:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(record.left_alone.items())[:3])
        raise PassFailed(
            "changed nothing" + (f" ({reasons})" if reasons else ""),
            step=step.id,
            plugin=record.plugin,
            hint="look at its options, or set allow_noop = true if that is fine",
        )
    if not _changes(step) and changed:
        raise PassFailed(f"is an {record.kind} and yet changed the model", step=step.id, plugin=record.plugin)


def _compare_asked(shop: Workshop, step: Step, asked: Asked) -> dict[str, Any]:
    got = _figure(shop, asked)
    if abs(got - asked.value) > asked.tolerance:
        raise PassFailed(f"promised {asked.figure} = {asked.value:,.6g} and reached {got:,.6g}", step=step.id)
    return {"figure": asked.figure, "asked": asked.value, "measured": got, "over": list(asked.over)}


def _figure(shop: Workshop, asked: Asked) -> float:
    footprint = shop.footprint
    if footprint is None:
        raise PassFailed("nothing was measured", step="")
    measured = footprint.over(asked.over) if asked.over else footprint
    return float(getattr(measured, asked.figure) or 0)


def evaluate_control(shop: Workshop, evaluators: Iterable[Step]) -> dict[str, Metric]:
    """The metrics of the uncompressed model, which was trained beside the other."""
    if shop.control is None:
        return {}
    return evaluate(replace(shop, model=shop.control.model), evaluators, {})


def evaluate(shop: Workshop, evaluators: Iterable[Step], metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics with those added that further evaluators give and that are not there yet."""
    measured = dict(metrics)
    for evaluator in evaluators:
        names = set(evaluator.config.metrics())
        if names and names <= set(measured):
            continue
        with shop.clock.others():
            implementation = shop.registry.implementation(evaluator.spec)(evaluator.config)
            measured |= implementation.measure(shop.model, shop.context(evaluator))
    return measured
