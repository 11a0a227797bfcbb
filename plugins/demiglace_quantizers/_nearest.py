"""Weights as the nearest integers, and what all methods of rounding give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demiglace.quantization import (
    Layer,
    QTensor,
    Rounding,
    Scheme,
    round_weight,
    rounding_method,
    weight_only_swap,
)

if TYPE_CHECKING:
    from demiglace.graph import Swap
    from demiglace.passes import Context


@dataclass
class Rounded:
    """What became of the weights of some layers, by the identity of the weight."""

    weights: dict[int, QTensor] = field(default_factory=dict)

    def swap(self, layer: Layer) -> Swap:
        """The edit of one layer that keeps its arithmetic in floating point."""
        weights = {own: self.weights[id(weight)] for own, weight in layer.weights.items()}
        return weight_only_swap(layer.name, layer.module, weights)


@rounding_method("rtn")
def nearest(task: Rounding) -> QTensor:
    """Round every weight to its nearest integer."""
    return round_weight(task.weight, task.scheme, clip=task.clip)


def round_each(
    layers: Sequence[Layer],
    scheme: Scheme,
    context: Context,
    *,
    clip: bool = False,
    method: Callable[[Rounding], QTensor] = nearest,
) -> Rounded:
    """Every weight of the layers by itself; one that several layers share only once."""
    weights = {id(weight): weight for layer in layers for weight in layer.weights.values()}
    done = Rounded()
    for key in context.track(list(weights), "rounding weights"):
        done.weights[key] = method(Rounding(weights[key].detach(), scheme, clip=clip))
    return done
