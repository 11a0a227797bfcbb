"""Accuracy control: layers that cost too much go back to floating point.

The idea of NNCF's accuracy control, simplified: layers are ranked once by what each alone does to the
model's outputs, and the fewest of the worst are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.errors import GraphError, UsageError
from demiglace.passes import Context, Problem, Targeted
from demiglace_quantizers._telling import tell

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.data import Batch
    from demiglace.graph import Edit, ModelGraph
    from demiglace.quantization import Layer

_EXAMPLES = 128  # that the ranking of layers looks at


class Controlled(Targeted):
    """Options of a quantizer that may return layers to floating point."""

    max_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """The largest loss of accuracy on the validation split, as a share of its examples. The layers that cost
    most go back to floating point until it holds. Without labels, the share of examples whose top class
    changes. Needs a model that gives class scores `[n, classes]`."""

    def data_needs(self) -> tuple[str, ...]:
        """What accuracy control needs of the data."""
        return () if self.max_drop is None else ("data.validation",)


def unjudged(model: ModelGraph, config: Targeted) -> Iterator[Problem]:
    """That `max_drop` cannot be measured, as far as the model's example tells."""
    from demiglace.calibration import undisturbed
    from demiglace.data import Batch

    if model.example is None or not isinstance(config, Controlled) or config.max_drop is None:
        return
    try:
        with undisturbed(model.module):
            _class_scores(model.module, Batch(model.example.args, model.example.kwargs))
    except UsageError as error:
        [fault] = error.faults
        yield Problem(fault.message, ("max_drop",), fault.hint)


def refuse_unjudged(model: ModelGraph, config: Targeted, context: Context) -> None:
    """See on the first validation examples whether `max_drop` can be measured, before anything is rounded.

    Raises:
        UsageError: when it cannot.
    """
    from demiglace.calibration import undisturbed

    if context.data is None or not isinstance(config, Controlled) or config.max_drop is None:
        return
    for batch in islice(context.data.evaluate("validation"), 1):
        with undisturbed(model.module, context.device):
            _class_scores(model.module, batch.to(context.device))


def _class_scores(module: nn.Module, batch: Batch) -> Tensor:
    """What a model gives for a batch, `[n, classes]`.

    Raises:
        UsageError: when that is something else, or the batch's labels are no classes.
    """
    from demiglace.training import is_classes, prediction

    hint = "leave `max_drop` out, and bound a metric that fits the model by a gate"
    scores = prediction(batch.run(module))
    if scores.dim() != 2 or scores.shape[1] < 2:
        found = f"the model gives {list(scores.shape)} instead of class scores [n, classes]"
        raise UsageError(f"`max_drop` counts top classes, and {found}", hint=hint)
    if batch.labels is not None and not is_classes(scores, batch.labels):
        found = f"the labels of the validation split are {batch.labels.dtype} {list(batch.labels.shape)}"
        raise UsageError(f"`max_drop` counts top classes, and {found}, no class indices [n]", hint=hint)
    return scores


@dataclass(frozen=True)
class Group:
    """Edits that belong together."""

    name: str
    edits: Sequence[Edit]
    #: The names of all its layers.
    layers: Sequence[str]


def together(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers, each with those that share a weight with it."""
    groups: list[list[Layer]] = []
    place: dict[int, int] = {}
    for layer in layers:
        keys = [id(weight) for weight in layer.weights.values()]
        known = next((place[key] for key in keys if key in place), len(groups))
        if known == len(groups):
            groups.append([])
        groups[known].append(layer)
        place |= dict.fromkeys(keys, known)
    return groups


def grouped(layers: Sequence[Layer], edits: Iterable[Edit]) -> list[Group]:
    """A group for each layer's edit; layers that share a weight are one group."""
    made = dict(zip((layer.name for layer in layers), edits, strict=True))
    groups = together(layers)
    names = [[one.name for one in some] for some in groups]
    return [Group(some[0], [made[one] for one in some], some) for some in names]


def within(
    model: ModelGraph, groups: Sequence[Group], max_drop: float | None, context: Context
) -> Iterator[Edit]:
    """The edits of as many groups as keep the loss of accuracy within `max_drop`; the rest is reported.

    Raises:
        GraphError: when not even one group can be kept.
        UsageError: when there is no validation data, or the model gives no class scores.
    """
    if max_drop is None:
        tell(context)
        return chain.from_iterable(group.edits for group in groups)
    judge = _Judge(model, context)
    ranked = sorted(groups, key=judge.damage, reverse=True)
    fewest = _fewest(len(ranked), lambda count: judge.drop(ranked[count:]) <= max_drop)
    if fewest == len(ranked):
        raise GraphError(
            f"no layer can be quantized within a drop of {max_drop:g}", hint="allow more, or more bits"
        )
    for group in ranked[:fewest]:
        context.leave_alone(group.name, f"returned to floating point to keep the drop within {max_drop:g}")
    context.figures["accuracy_drop"] = judge.drop(ranked[fewest:])
    context.figures["returned"] = [group.name for group in ranked[:fewest]]
    returned = set(map(id, ranked[:fewest]))
    tell(context, {layer for group in ranked[:fewest] for layer in group.layers})
    return chain.from_iterable(group.edits for group in groups if id(group) not in returned)


def _fewest(total: int, holds: Callable[[int], bool]) -> int:
    """The smallest count from 0 to `total` that holds, found by doubling and halving; `total` always does.

    More returned layers are taken to lose less accuracy, so the result holds even where that is not so.
    """
    below, above = -1, 0
    while above < total and not holds(above):
        below, above = above, max(1, 2 * above)
    above = min(above, total)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above


class _Judge:
    """Compares a model under edits with the same model without them."""

    def __init__(self, model: ModelGraph, context: Context) -> None:
        if context.data is None:
            raise UsageError("max_drop needs data to measure on", hint="give the recipe a [data] table")
        self.model, self.context = model, context
        self.batches = [batch.to(context.device) for batch in context.data.evaluate("validation")]
        if not self.batches:
            raise UsageError("the validation split is empty", hint="max_drop is measured on it")
        self.scores = self._scores(())
        labels = [batch.labels for batch in self.batches]
        self.labels = self.scores.argmax(1) if any(one is None for one in labels) else _joined(labels)
        self.accuracy = self._accuracy(self.scores)

    def damage(self, group: Group) -> float:
        """What a group alone does to the outputs: the mean square of their change."""
        few = self._scores(group.edits, _EXAMPLES)
        return float((few - self.scores[: len(few)]).square().mean())

    def drop(self, groups: Sequence[Group]) -> float:
        """What groups together lose of the accuracy."""
        edits = tuple(chain.from_iterable(group.edits for group in groups))
        return self.accuracy - self._accuracy(self._scores(edits))

    def _accuracy(self, scores: Tensor) -> float:
        return float((scores.argmax(1) == self.labels).double().mean())

    def _scores(self, edits: Sequence[Edit], examples: int | None = None) -> Tensor:
        """Class scores `[n, classes]` with edits applied, which are then taken back."""
        import torch

        from demiglace.calibration import undisturbed
        from demiglace.graph import apply

        found: list[Tensor] = []
        transaction = apply(self.model, edits)
        try:
            with undisturbed(self.model.module, self.context.device):
                for batch in self.batches:
                    self.context.check_interrupt()
                    found.append(_class_scores(self.model.module, batch))
                    if examples is not None and sum(map(len, found)) >= examples:
                        break
        finally:
            transaction.rollback()
        return torch.cat(found)


def _joined(labels: list[Tensor | None]) -> Tensor:
    import torch

    return torch.cat([one for one in labels if one is not None])
