"""What the rules of `demiglace quick` look at, gathered from a model and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from demiglace.errors import DemiglaceError
from demiglace.machine import compiler

if TYPE_CHECKING:
    from demiglace.data import Batch, Data
    from demiglace.engine import Checked
    from demiglace.engine.events import Listener
    from demiglace.graph import ModelGraph

Watch: TypeAlias = "Callable[[Iterable[Batch], int | None], Iterator[Batch]]"
"""Passes batches on, so many of them if that is known, and says how far it has come."""

UNTRAINED = 0.1
"""How far on the way from guessing to perfect a model must be to count as trained."""


@dataclass(frozen=True)
class Weight:
    """A weight that can become integers."""

    rows: int
    columns: int
    bytes: int


@dataclass(frozen=True)
class Facts:
    """A model and its data, as far as the rules care."""

    weights: tuple[Weight, ...]
    #: Of all parameters and buffers.
    bytes: int
    #: Of those among them that are floating point.
    float_bytes: int
    splits: frozenset[str] = frozenset()
    #: Whether examples are labelled with classes that the model's outputs tell apart.
    labels: bool = False
    #: Optimizer steps of one epoch; `None` where only walking the data would tell.
    steps_per_epoch: int | None = None
    #: Whether there are channels or neurons that can be removed.
    prunable: bool = False
    #: Whether it has convolutions.
    convolutions: bool = False
    #: The runtimes of exported files that are installed here, each with the pass that writes its files.
    runtimes: Mapping[str, str] = field(default_factory=dict)
    #: Whether torch.compile can work here.
    compiles: bool = False
    #: On examples that are not for testing; `None` without labels.
    accuracy: float | None = None
    #: The accuracy of always answering the most frequent class.
    guessing: float | None = None

    @property
    def trainable(self) -> bool:
        """Whether the data can train the model."""
        return self.labels and "train" in self.splits

    @property
    def untrained(self) -> bool:
        """Whether the model is hardly better than guessing."""
        if self.accuracy is None or self.guessing is None:
            return False
        return self.accuracy < self.guessing + UNTRAINED * (1 - self.guessing)


def gather(checked: Checked, listener: Listener, check_interrupt: Callable[[], None]) -> Facts:
    """Open the model and the data of a checked recipe, run the model once over a split, and look.

    Args:
        checked: the recipe.
        listener: hears how far the model has come over the split.
        check_interrupt: may raise to stop.

    Raises:
        DemiglaceError: when the model or the data cannot be had, or do not fit each other.
    """
    from torch import nn

    from demiglace.engine.prepare import check_finite, check_fit, example_of, open_dataset, open_model
    from demiglace.engine.sources import model_source
    from demiglace.measure import measure
    from demiglace.quantization import select_layers

    source = model_source(checked, checked.model)
    if source is None or checked.model is None:
        raise TypeError("the recipe has no source of a model")
    model = open_model(source, checked.model, checked.recipe, "model")
    checked.registry.load_registered()
    data = open_dataset(checked.data, checked.registry, checked.recipe)
    model.module.eval()
    model.example = example_of(None, data, source, batch=2)
    check_finite(model)
    check_fit(model, checked.recipe)
    weights = {id(one): one for layer in select_layers(model).layers for one in layer.weights.values()}
    tensors = [*model.module.parameters(), *model.module.buffers()]
    return Facts(
        weights=tuple(Weight(len(one), one[0].numel(), one.nbytes) for one in weights.values()),
        bytes=measure(model).bytes,
        float_bytes=sum(one.nbytes for one in tensors if one.is_floating_point()),
        prunable=_prunable(model),
        convolutions=any(isinstance(one, nn.Conv1d | nn.Conv2d) for one in model.module.modules()),
        runtimes={
            name: spec.exporter for name, spec in checked.registry.runtimes.items() if not spec.missing()
        },
        compiles=compiler() is not None,
        **_of_data(model, data, _watched(listener, check_interrupt)),
    )


def _watched(listener: Listener, check_interrupt: Callable[[], None]) -> Watch:
    """Passes batches on, and says how many there were."""

    def watched(batches: Iterable[Batch], total: int | None) -> Iterator[Batch]:
        for number, batch in enumerate(batches):
            check_interrupt()
            listener.progress("quick", number, total, "looking at the model")
            yield batch

    return watched


def _prunable(model: ModelGraph) -> bool:
    try:
        return bool(model.groups)
    except DemiglaceError:
        return False


def _of_data(model: ModelGraph, data: Data | None, watched: Watch) -> dict[str, Any]:
    if data is None or not data.splits:
        return {}
    split = next((one for one in ("validation", "train") if one in data.splits), next(iter(data.splits)))
    steps = data.split("train").count(data.batch_size) if "train" in data.splits else None
    batches = watched(data.evaluate(split), data.split(split).count(data.eval_batch_size))
    accuracy, guessing = _accuracy(model, batches)
    return {
        "splits": frozenset(data.splits),
        "labels": accuracy is not None,
        "steps_per_epoch": steps,
        "accuracy": accuracy,
        "guessing": guessing,
    }


def _accuracy(model: ModelGraph, batches: Iterable[Batch]) -> tuple[float | None, float | None]:
    """The share of right answers and that of the most frequent class; `None` without class labels."""
    import torch

    from demiglace.training import evaluating, is_classes, prediction

    hits, labels = [], []
    with evaluating(model.module):
        for batch in batches:
            scores = prediction(batch.run(model.module))
            if batch.labels is None or not is_classes(scores, batch.labels):
                return None, None
            known = batch.labels >= 0  # below are labels that losses ignore
            hits.append((scores.argmax(1) == batch.labels)[known])
            labels.append(batch.labels[known])
    if not sum(map(len, labels)):
        return None, None
    counts = torch.bincount(torch.cat(labels))
    return float(torch.cat(hits).double().mean()), float(counts.max() / counts.sum())
