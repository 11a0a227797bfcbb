"""Layers that train in floating point and compute with the integers that their weights will become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.affine import fit
from demiglace.quantization.modules.fused import each
from demiglace.quantization.modules.trained import TrainedWeights, in_training
from demiglace.quantization.qtensor import QTensor, grouped
from demiglace.quantization.scheme import Scheme
from demiglace.quantization.straight_through import fake_affine, fake_symmetric, learned_step, moving

STEP, LOG_STEP = "_step", "_log_step"
"""What the first step sizes and what is learned of them add to a weight's name."""

INPUTS = Scheme(8, symmetric=False)
"""The integers of inputs."""

_SHARE = 0.05  # of a new batch in the average of the inputs' range


class FakeQuantized(TrainedWeights):
    """A layer whose weights stay parameters and are rounded whenever it computes.

    Weights are symmetric with one learned step size for each row.
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
            # Layers that round their inputs have one, which may be given by its name.
            [given] = (*args, *kwargs.values())
            if given.is_nested:
                return each(self.forward, given)
            args, kwargs = (self._inputs(given),), {}
        return super().forward(*args, **kwargs)

    def computed(self, name: str) -> Tensor:
        """A weight as its integers stand for it, with gradients to it and to its step sizes."""
        weight = self.own(name)
        step = self.step(name).view(-1, *[1] * (weight.dim() - 1))
        return fake_symmetric(weight, step, Scheme(self.bits[name])).to(weight.dtype)

    def step(self, name: str) -> Tensor:
        """The step sizes of a weight as they are now, `[rows]`."""
        start, log_step = self._buffers[name + STEP], self._parameters[name + LOG_STEP]
        if start is None or log_step is None:
            raise ValueError(f"{name!r} has lost its step sizes")
        return learned_step(start, log_step, self.own(name)[0].numel(), Scheme(self.bits[name]).high)

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
        weight, scheme, step = self.own(name), Scheme(self.bits[name]), self.step(name)
        groups = grouped(weight, scheme).float()
        scale = step.view(-1, 1, 1)
        integers = (groups / scale).round_().clamp_(scheme.low, scheme.high)
        return QTensor.of(integers, scale, torch.zeros_like(scale), scheme, tuple(weight.shape))

    def _inputs(self, values: Tensor) -> Tensor:
        if self.training and self.observing and values.numel():
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
    names = tuple(options["weights"])
    attributes = {"bits": dict(options["weights"]), "rounds_inputs": options["inputs"], "observing": True}
    new = in_training(old, FakeQuantized, names, **attributes)
    for name in names:
        weight = new.get_parameter(name)
        # As scales are stored: weights of 16 bits would round them, those of 64 need no finer ones.
        step = torch.zeros(len(weight), device=weight.device)
        new.add(name + STEP, step)
        new.add(name + LOG_STEP, nn.Parameter(step.clone()))
    if options["inputs"]:
        device = next(new.parameters()).device
        for name in ("input_low", "input_high"):
            new.add(name, torch.zeros((), device=device))
    return new
