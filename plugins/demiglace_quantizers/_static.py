"""The work of `quantize.static`, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from demiglace.calibration import Moments, Several, calibrate, calibration_batches
from demiglace.errors import GraphError
from demiglace.graph import Edit, ModelGraph
from demiglace.quantization import (
    OBSERVERS,
    Folded,
    Layer,
    Observer,
    QTensor,
    Scheme,
    fit,
    fold,
    foldable,
    round_weight,
    weight_only_swap,
)
from demiglace_quantizers._control import Group, together
from demiglace_quantizers._integer import integer_swap, integer_type

if TYPE_CHECKING:
    from demiglace.passes import Context

_ACTIVATIONS = Scheme(8, symmetric=False)


class Options(Protocol):
    """What it takes from the pass's options."""

    @property
    def bits(self) -> int: ...
    @property
    def observer(self) -> str: ...
    @property
    def bias_correction(self) -> bool: ...
    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


class StaticQuantizer:
    """Rounds the weights of some layers and fixes the ranges of their inputs; the model stays as it is."""

    def __init__(self, model: ModelGraph, layers: list[Layer], options: Options, context: Context) -> None:
        self.layers, self.options = layers, options
        self.modules = dict(model.module.named_modules())
        self.ranges, self.means = self._observe(model, context)
        self.folded = self._folded(model, context)
        scheme = Scheme(options.bits)
        #: Layers that compute on integers.
        self.integer = list(self.ranges)
        #: Every rounded weight, by the identity of the original.
        self.weights: dict[int, QTensor] = {}
        for layer in context.track(layers, "rounding weights"):
            for own, weight in layer.weights.items():
                known = self._folded_weight(layer, own)
                self.weights[id(weight)] = round_weight(known, scheme, clip=options.bits < 8)

    def groups(self) -> list[Group]:
        """For every layer its swap, and that of the batch norm that it takes up; sharing layers are one."""
        return [
            Group(some[0].name, list(chain.from_iterable(map(self._edits, some))), [one.name for one in some])
            for some in together(self.layers)
        ]

    def _edits(self, layer: Layer) -> Iterator[Edit]:
        weights = {own: self.weights[id(weight)] for own, weight in layer.weights.items()}
        if layer.name not in self.ranges:
            yield weight_only_swap(layer.name, layer.module, weights)
            return
        weight = weights["weight"]
        yield integer_swap(layer, weight, self.ranges[layer.name], self._bias(layer, weight))
        if layer.name in self.folded:
            yield self.folded[layer.name].swap()

    def _folded(self, model: ModelGraph, context: Context) -> dict[str, Folded]:
        """The layers that take up the batch norm after them."""
        try:
            pairs = foldable(model)
        except GraphError as error:
            context.warn(f"batch norms are not folded, because the model cannot be traced: {error}")
            return {}
        names = {layer.name: layer for layer in self.layers if layer.name in self.ranges}
        return {
            name: fold(names[name].module, self.modules[norm], norm)
            for name, norm in pairs.items()
            if name in names
        }

    def _observe(
        self, model: ModelGraph, context: Context
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
        """Scale and zero point of each layer's inputs, and their mean by channel."""
        names = [layer.name for layer in self.layers if integer_type(layer.module)]
        observers: dict[str, Observer] = {name: OBSERVERS[self.options.observer]() for name in names}
        moments = {name: Moments() for name in names}
        both = {name: Several(observers[name], moments[name]) for name in names}
        batches = calibration_batches(context, self.options.samples, self.options.batch_size)
        calibrate(model, batches, both, context)
        called = [name for name in names if both[name].calls]
        ranges = {name: observers[name].range(_ACTIVATIONS) for name in called}
        fitted = {
            name: fit(torch.tensor(low), torch.tensor(high), _ACTIVATIONS)
            for name, (low, high) in ranges.items()
        }
        return fitted, {name: moments[name].mean.float() for name in called}

    def _folded_weight(self, layer: Layer, own: str) -> Tensor:
        folded = self.folded.get(layer.name)
        return layer.weights[own].detach() if folded is None else folded.weight

    def _bias(self, layer: Layer, weight: QTensor) -> Tensor | None:
        """The layer's bias, folded and corrected; `None` where it has none."""
        folded, own = self.folded.get(layer.name), layer.module._parameters.get("bias")
        bias = own.detach() if folded is None and own is not None else None if folded is None else folded.bias
        if bias is None or not self.options.bias_correction:
            return bias
        error = self._folded_weight(layer, "weight") - weight.dequantize()
        return bias + _mean_output(layer.module, error.float(), self.means[layer.name]).to(bias.dtype)


def _mean_output(module: nn.Module, weight: Tensor, mean: Tensor) -> Tensor:
    """The mean output `[outputs]` of a weight on inputs with a mean for each channel, edges left out."""
    groups = getattr(module, "groups", 1)
    summed = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    return torch.einsum("goc,gc->go", summed.unflatten(0, (groups, -1)), mean.view(groups, -1)).flatten()
