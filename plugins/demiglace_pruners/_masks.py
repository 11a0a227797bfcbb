"""What every mask pruner does around its ranking: choose weights, refuse NaN, make edits, promise zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from demiglace.errors import GraphError
from demiglace.graph import Mask, count_zeros
from demiglace.passes import Asked, Context, Editor, Problem, Targeted

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph, Weight

C = TypeVar("C", bound=Targeted)

_HINT = "name layers that hold a weight of at least two dimensions; `layer1.*` takes those inside `layer1`"


class MaskEditor(Editor[C]):
    """An editor that masks the weights that its selectors take."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        if not any(model.weights(self.config.targets, self.config.ignore)):
            yield Problem(_nothing(self.config), ("targets",), _HINT)

    def unscheduled(self) -> Problem | None:
        if getattr(self.config, "of", "total") != "remaining":
            return None
        message = 'a schedule raises a share of all weights, and these options say of = "remaining"'
        return Problem(message, ("of",), 'write of = "total"')


def _nothing(config: Targeted) -> str:
    return f"{config.selector_words()} select no weight that can be pruned"


def chosen(model: ModelGraph, config: Targeted, context: Context) -> list[Weight]:
    """The floating-point weights that the selectors take, frozen ones too; the rest is reported.

    Raises:
        GraphError: when there is none, or one holds NaN.
    """
    weights = []
    for weight in model.weights(config.targets, config.ignore):
        if not weight.tensor.is_floating_point():
            context.leave_alone(weight.name, f"its dtype {weight.tensor.dtype} has no magnitude to rank")
        elif weight.tensor.numel():
            weights.append(weight)
    if not weights:
        raise GraphError(_nothing(config), hint=_HINT)
    for weight in weights:
        refuse_nan(weight)
    return weights


def refuse_nan(weight: Weight) -> None:
    """Raise when a weight holds NaN, which has no place in a ranking.

    Raises:
        GraphError: names the weight.
    """
    largest = weight.tensor.amax()  # NaN wins over every number
    if largest.isnan():
        raise GraphError(
            f"weight {weight.name!r} holds NaN and cannot be ranked",
            hint="look at the training before this pass, or name the layer under `ignore`",
        )


def mask_edits(weights: Sequence[Weight], keeps: Sequence[Tensor]) -> Iterator[Mask]:
    """An edit for each weight of which `keeps` holds anything at zero that no mask holds yet."""
    for weight, keep in zip(weights, keeps, strict=True):
        if not _keeps_all(keep, weight.keep):
            yield Mask(weight.name, keep)


def _keeps_all(keep: Tensor, of: Tensor | None) -> bool:
    """Whether `keep` takes nothing from another mask, or from all."""
    # Equality ends at the first difference.
    return bool(keep.all()) if of is None else (keep & of).equal(of)


def zeros_after(weight: Weight, keep: Tensor) -> int:
    """How many elements are zero when `keep` has joined the weight's mask."""
    return count_zeros(weight.tensor, keep if weight.keep is None else keep & weight.keep)


def promise_zeros(context: Context, weights: Sequence[Weight], zeros: int) -> None:
    """Have the engine measure that so many elements of `weights` are zero in the end."""
    context.ask(Asked("zeros", zeros, over=tuple(weight.name for weight in weights)))
