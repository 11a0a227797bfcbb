"""The edits that make a layer compute on integers with a fixed range of inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from demiglace.quantization import Layer, QTensor, has_own_forward, quantized_swap

if TYPE_CHECKING:
    from demiglace.graph import Swap

_TYPES = {
    nn.Linear: "quantized.linear.static",
    nn.Conv1d: "quantized.conv1d.static",
    nn.Conv2d: "quantized.conv2d.static",
}


def integer_type(module: nn.Module) -> str:
    """The type of integer layer that takes a module's place; empty where there is none."""
    if has_own_forward(module):
        return ""
    return next((kind for base, kind in _TYPES.items() if isinstance(module, base)), "")


def integer_swap(layer: Layer, weight: QTensor, inputs: tuple[Tensor, Tensor], bias: Tensor | None) -> Swap:
    """The edit of one layer that has an `integer_type`.

    Args:
        layer: the layer.
        weight: its weight.
        inputs: scale and zero point of its inputs, scalars.
        bias: its new bias, if it has one.
    """
    tensors = {"input_scale": inputs[0], "input_zero_point": inputs[1]}
    if isinstance(layer.module, nn.Linear):
        tensors["weight_sums"] = weight.integers.sum(1).float()
    if bias is not None:
        tensors["bias"] = bias
    return quantized_swap(
        layer.name,
        layer.module,
        integer_type(layer.module),
        {"weight": weight},
        options={"bias": bias is not None},
        tensors=tensors,
    )
