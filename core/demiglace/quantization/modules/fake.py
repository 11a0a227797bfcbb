"""Layers that train in floating point and compute with the integers that their weights will become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.affine import fit
from demiglace.quantization.modules.fused import each, must_be_called
from demiglace.quantization.qtensor import QTensor, grouped
from demiglace.quantization.scheme import Scheme
from demiglace.quantization.straight_through import fake_affine, fake_symmetric, learned_step, moving

STEP, LOG_STEP = "_step", "_log_step"
"""What the first step sizes and what is learned of them add to a weight's name."""

INPUTS = Scheme(8, symmetric=False)
"""The integers of inputs."""

_SHARE = 0.05  # of a new batch in the average of the inputs' range


class FakeQuantized(nn.Module):
    """A layer whose weights stay parameters and are rounded whenever it computes.

    Weights are symmetric with one learned step size for each row. Subclasses also inherit from the layer's
    class, whose forward finds the rounded weight under its name.
    """

    #: Bits of each weight, by its own name.
    bits: dict[str, int]
    #: Whether inputs are rounded to 8 bits as well.
    rounds_inputs: bool
    #: Whether the range of the inputs still follows them in training.
    observing: bool
    #: The range of the inputs, scalars; both 0 before the first.
    input_low: Tensor
    input_high: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.rounds_inputs:
            first, *others = args
            if first.is_nested:
                return each(self.forward, first)
            args = (self._inputs(first), *others)
        # Attention reads the weight of a projection inside it, and does not call it.
        holders = [self, *(each for each in self.children() if isinstance(each, FakeQuantized))]
        for holder in holders:
            holder.__dict__.update({name: holder.rounded(name) for name in holder.bits})
        try:
            return super().forward(*args, **kwargs)
        finally:
            for holder in holders:
                for name in holder.bits:
                    holder.__dict__.pop(name, None)

    def rounded(self, name: str) -> Tensor:
        """A weight as its integers stand for it, with gradients to it and to its step sizes."""
        weight = self._weight(name)
        step = self.step(name).view(-1, *[1] * (weight.dim() - 1))
        return fake_symmetric(weight, step, Scheme(self.bits[name]))

    def step(self, name: str) -> Tensor:
        """The step sizes of a weight as they are now, `[rows]`."""
        start, log_step = self._buffers[name + STEP], self._parameters[name + LOG_STEP]
        if start is None or log_step is None:
            raise ValueError(f"{name!r} has lost its step sizes")
        return learned_step(start, log_step, self._weight(name)[0].numel(), Scheme(self.bits[name]).high)

    def step_parameters(self) -> Iterator[nn.Parameter]:
        """What is learned of the step sizes."""
        return (self.get_parameter(name + LOG_STEP) for name in self.bits)

    @property
    def observed(self) -> bool:
        """Whether inputs are rounded, and some were seen."""
        return self.rounds_inputs and bool(self.input_low < self.input_high)

    def input_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the inputs, scalars."""
        return fit(self.input_low, self.input_high, INPUTS)

    @torch.no_grad()
    def integers(self, name: str) -> QTensor:
        """A weight as it will be stored, with scales in float32, so that it computes as it was trained."""
        weight, scheme, step = self._weight(name), Scheme(self.bits[name]), self.step(name)
        groups = grouped(weight, scheme)
        scale = step.view(-1, 1, 1)
        integers = (groups / scale).round_().clamp_(scheme.low, scheme.high)
        return QTensor.of(integers, scale, torch.zeros_like(scale), scheme, tuple(weight.shape))

    def _weight(self, name: str) -> Tensor:
        weight = self._parameters[name]
        if weight is None:
            raise ValueError(f"the layer has no {name!r}")
        return weight

    def _inputs(self, values: Tensor) -> Tensor:
        if self.training and self.observing:
            with torch.no_grad():
                low, high = values.float().aminmax()
                self.input_low.copy_(moving(self.input_low, low, _SHARE))
                self.input_high.copy_(moving(self.input_high, high, _SHARE))
        return fake_affine(values, self.input_low, self.input_high, INPUTS)


def fake_quantized(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The same layer with its own tensors, and step sizes for its weights beside them.

    Args:
        old: any layer with weights whose rows are their first dimension.
        options: `weights`, their bits by name, and `inputs`, whether inputs are rounded.
    """
    kind = type(type(old).__name__, (FakeQuantized, type(old)), {})
    new: nn.Module = object.__new__(kind)
    new.__dict__.update(vars(old))
    for own in ("_parameters", "_buffers", "_modules"):
        new.__dict__[own] = dict(vars(old)[own])
    new.__dict__.update(bits=dict(options["weights"]), rounds_inputs=options["inputs"], observing=True)
    # The layer that it was made of keeps its own hooks.
    new._forward_pre_hooks = new._forward_pre_hooks.copy()
    must_be_called(new)
    for name in options["weights"]:
        weight = new.get_parameter(name)
        new.register_buffer(name + STEP, weight.new_empty(len(weight)))
        new.register_parameter(name + LOG_STEP, nn.Parameter(weight.new_zeros(len(weight))))
    if options["inputs"]:
        device = next(new.parameters()).device
        for name in ("input_low", "input_high"):
            new.register_buffer(name, torch.zeros((), device=device))
    return new


def trained(layer: nn.Module) -> nn.Module:
    """The layer that `fake_quantized` was made of, with its weights as they are now; others as they are."""
    if not isinstance(layer, FakeQuantized):
        return layer
    plain: nn.Module = object.__new__(type(layer).__mro__[2])
    added = {name + end for name in layer.bits for end in (STEP, LOG_STEP)} | {"input_low", "input_high"}
    plain.__dict__.update({name: value for name, value in vars(layer).items() if name not in _OWN})
    for own in ("_parameters", "_buffers"):
        plain.__dict__[own] = {name: value for name, value in vars(layer)[own].items() if name not in added}
    return plain


_OWN = ("bits", "rounds_inputs", "observing")
