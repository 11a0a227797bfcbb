"""The work of `quantize.qat`: layers that round while they train, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from demiglace.errors import GraphError
from demiglace.graph import Edit, Swap
from demiglace.passes import Loop
from demiglace.quantization import (
    FakeQuantized,
    Folded,
    Layer,
    QTensor,
    Scheme,
    fake_swap,
    fit_weight,
    fold,
    foldable,
    weight_only_swap,
)
from demiglace_quantizers._integer import integer_swap, integer_type
from demiglace_quantizers._layers import chosen, nothing, report_weights, unshared
from demiglace_quantizers._telling import tell

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace_quantizers.qat import QatConfig


class Trained:
    """Layers that round their weights from now on, until they become integers."""

    def __init__(self, loop: Loop, options: QatConfig) -> None:
        self.loop = loop
        #: The same objects before, while and after they round.
        self.layers = list(unshared(chosen(loop.model, options, loop.context), loop.context))
        if not self.layers:
            raise nothing(options, loop.context.left_alone)
        self._norms = _norms(loop)
        loop.apply([_fake(layer, options) for layer in self.layers])
        loop.train_also(chain.from_iterable(one.step_parameters() for one in self._rounding()))

    def freeze_ranges(self) -> None:
        """Let the ranges of inputs be."""
        for layer in self._rounding():
            layer.observing = False

    def freeze_norms(self) -> None:
        """Have batch norms use their running statistics; to be said again when training mode was set."""
        for module in self.loop.model.module.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def integers(self) -> Iterator[Edit]:
        """The edits that put integers in place of all weights."""
        context = self.loop.context
        weights = {
            id(weight): module.integers(own)
            for layer, module in zip(self.layers, self._rounding(), strict=True)
            for own, weight in layer.weights.items()
        }
        report_weights(context, self.layers, weights)
        tell(context)
        for layer, module in zip(self.layers, self._rounding(), strict=True):
            own = {name: weights[id(weight)] for name, weight in layer.weights.items()}
            if module.observed:
                yield from self._integer(layer, module, own["weight"])
            else:
                yield weight_only_swap(layer.name, layer.module, own)

    def _integer(self, layer: Layer, module: FakeQuantized, weight: QTensor) -> Iterator[Edit]:
        """A layer that computes on integers, the batch norm behind it in its scales and its bias."""
        own = layer.module._parameters.get("bias")
        bias = None if own is None else own.detach()
        norm = self._norms.get(layer.name)
        if norm is not None:
            folded = fold(layer.module, self.loop.model.module.get_submodule(norm), norm)
            weight, bias = _scaled(weight, folded), folded.bias
            yield folded.swap()
        yield integer_swap(layer, weight, module.input_affine(), bias)

    def _rounding(self) -> Iterator[FakeQuantized]:
        for layer in self.layers:
            if not isinstance(layer.module, FakeQuantized):
                raise GraphError(f"layer {layer.name!r} was replaced while it was in training")
            yield layer.module


def _norms(loop: Loop) -> dict[str, str]:
    """The batch norm that each layer will take up; none where the model cannot be traced."""
    if not any(isinstance(module, _BatchNorm) for module in loop.model.module.modules()):
        return {}
    try:
        return foldable(loop.model)
    except GraphError as error:
        loop.context.warn(f"batch norms are not folded, because the model cannot be traced: {error}")
        return {}


def _fake(layer: Layer, options: QatConfig) -> Swap:
    """The edit that has a layer round; step sizes start where they round best."""
    scheme = Scheme(options.bits)
    steps = {own: _first_steps(weight, scheme) for own, weight in layer.weights.items()}
    inputs = options.inputs == "int8" and integer_type(layer.module) != ""
    return fake_swap(layer.name, steps, options.bits, inputs=inputs)


def _first_steps(weight: Tensor, scheme: Scheme) -> Tensor:
    return fit_weight(weight, scheme, clip=True)[0].flatten()


def _scaled(weight: QTensor, folded: Folded) -> QTensor:
    """Integers times a factor for each row: exact, since the scales take it up."""
    factor = folded.factor
    scale = weight.scale * factor.abs().unsqueeze(1)
    integers = weight.integers * factor.sign().to(torch.int8).unsqueeze(1)
    scale = torch.where(scale == 0, 1.0, scale)
    zero = torch.zeros_like(scale).unsqueeze(2)
    return QTensor.of(integers.unsqueeze(1), scale.unsqueeze(2), zero, weight.scheme, weight.shape)
