"""`mlp`: a multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.passes import Config, ModelSource

if TYPE_CHECKING:
    from torch import nn

Activation = Literal[
    "ELU", "GELU", "Hardswish", "Hardtanh", "LeakyReLU", "Mish", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Tanh"
]
"""Activations of `torch.nn` that work without options."""


class MlpConfig(Config):
    """Multi-layer perceptron with linear layers `fc1`, `fc2`, ...; flattens its input."""

    widths: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)]
    """Features of the input, of each hidden layer, and of the output."""
    activation: Activation = "ReLU"
    """Class name in `torch.nn` of the activation between two layers."""

    def words(self) -> str:
        return f"{'-'.join(map(str, self.widths))}, {self.activation}"


class MlpSource(ModelSource[MlpConfig]):
    """Builds the perceptron; takes inputs of shape `[n, ...]` with `widths[0]` values an example."""

    def build(self) -> nn.Module:
        return perceptron(self.config.widths, self.config.activation)

    def example_shape(self) -> tuple[int, ...]:
        return (self.config.widths[0],)


def perceptron(widths: list[int], activation: str) -> nn.Sequential:
    """Flatten, then linear layers `fc1`, `fc2`, ... with activations `act1`, `act2`, ... between them."""
    from torch import nn

    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    for number, (width_in, width_out) in enumerate(pairwise(widths), start=1):
        if number > 1:
            model.add_module(f"act{number - 1}", getattr(nn, activation)())
        model.add_module(f"fc{number}", nn.Linear(width_in, width_out))
    return model
