"""`evaluate.classification`: how well a model tells classes apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import Config, Context, Contract, Evaluator, Kind, Metric, PassSpec

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph
    from demiglace_evaluators.tally import Tally


class ClassificationConfig(Config):
    """Accuracy, top-k accuracy, loss and macro F1 on labelled examples."""

    split: Literal["train", "validation", "test"] = "test"
    """The examples to measure on."""
    top_k: list[Annotated[int, Field(ge=2)]] = Field(default=[])
    """For each k, the share of examples whose class is among the k of the highest score."""
    gap: bool = False
    """Whether to measure the training accuracy too, and report it minus that of `split`."""

    def contract(self) -> Contract:
        gap = ("data.train",) if self.gap else ()
        return Contract.of(needs=("labels", f"data.{self.split}", *gap))

    def words(self) -> str:
        return f"{', '.join(self.metrics())} on the {self.split} split"

    def metrics(self) -> tuple[str, ...]:
        top = tuple(f"top{k}_accuracy" for k in self.top_k)
        return ("accuracy", *top, "loss", "f1", *(("accuracy_gap",) if self.gap else ()))


class Classification(Evaluator[ClassificationConfig]):
    """Runs the model over a split once.

    Predictions have shape `[n, classes]` or `[n, classes, ...]`; labels are class indices of shape `[n]` or
    `[n, ...]`. `loss` is the mean cross-entropy in nats. `f1` is the mean over classes of
    2 TP / (2 TP + FP + FN), over those classes that occur among labels or predictions.
    """

    def measure(self, model: ModelGraph, context: Context) -> Mapping[str, Metric]:
        tally = self._tally(model, context, self.config.split)
        metrics = {"accuracy": _share(tally.hits)}
        metrics |= {f"top{k}_accuracy": _share(tally.top(k)) for k in self.config.top_k}
        losses = tally.losses
        metrics["loss"] = Metric(float(losses.double().mean()), False, "nats", losses.numel(), losses)
        metrics["f1"] = Metric(tally.f1(), True, "share", losses.numel())
        if self.config.gap:
            train = float(self._tally(model, context, "train").hits.double().mean())
            metrics["accuracy_gap"] = Metric(train - metrics["accuracy"].value, False, "share")
        return metrics

    def _tally(self, model: ModelGraph, context: Context, split: str) -> Tally:
        from demiglace.training import evaluating
        from demiglace_evaluators.tally import Tally

        if context.data is None:
            raise UsageError("there is no data to evaluate on", hint="give the recipe a [data] table")
        tally = Tally(self.config.top_k)
        total = context.data.split(split).count(context.data.eval_batch_size)
        with evaluating(model.module, context.device):
            for raw in context.track(context.data.evaluate(split), f"evaluating on {split}", total):
                batch = raw.to(context.device)
                tally.add(batch.run(model.module), batch.labels)
        if len(tally) == 0:
            raise UsageError(f"the {split} split is empty", hint="give it examples")
        return tally


def _share(hits: Tensor) -> Metric:
    return Metric(float(hits.double().mean()), True, "share", hits.numel(), hits)


SPEC = PassSpec(
    "evaluate.classification",
    Kind.EVALUATOR,
    ClassificationConfig,
    "demiglace_evaluators.classification:Classification",
    '[[pass]]\nuse = "evaluate.classification"\ntop_k = [5]\n',
)
