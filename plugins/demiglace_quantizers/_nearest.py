"""Weights as the nearest integers, and what all methods of rounding give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    from torch import Tensor

    from demiglace.graph import Swap
    from demiglace.passes import Context


@dataclass
class Rounded:
    """What became of some layers."""

    #: By the identity of the weight.
    weights: dict[int, QTensor] = field(default_factory=dict)
    #: New biases, by layer.
    biases: dict[str, Tensor] = field(default_factory=dict)

    def swap(self, layer: Layer) -> Swap:
        """The edit of one layer that keeps its arithmetic in floating point."""
        weights = {own: self.weights[id(weight)] for own, weight in layer.weights.items()}
        bias = {"bias": self.biases[layer.name]} if layer.name in self.biases else {}
        return weight_only_swap(layer.name, layer.module, weights, tensors=bias)


def alike(layers: Sequence[Layer], scheme: Scheme) -> dict[int, Scheme]:
    """One scheme for every weight of the layers, by the identity of the weight."""
    return {id(weight): scheme for layer in layers for weight in layer.weights.values()}


@rounding_method("rtn")
def nearest(task: Rounding) -> QTensor:
    """Round every weight to its nearest integer."""
    return round_weight(task.weight, task.scheme, clip=task.clip)


def round_each(
    layers: Sequence[Layer],
    schemes: Mapping[int, Scheme],
    context: Context,
    *,
    clip: bool = False,
    method: Callable[[Rounding], QTensor] = nearest,
) -> Rounded:
    """Every weight of the layers by itself; one that several layers share only once.

    Args:
        layers: whose weights to round.
        schemes: by the identity of the weight.
        context: shows progress and honours interrupts.
        clip: see `Rounding`.
        method: how to round.
    """
    weights = {id(weight): weight for layer in layers for weight in layer.weights.values()}
    done = Rounded()
    for key in context.track(list(weights), "rounding weights"):
        given = weights[key].detach(), schemes[key]
        done.weights[key] = method(Rounding(*given, clip=clip, check_interrupt=context.check_interrupt))
    return done
