"""What looks at a layer while data runs through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from demiglace.errors import UsageError

Side = Literal["input", "output"]


class Collector(ABC):
    """Gathers a statistic of one layer; `calibrate` calls it once for every call of the layer.

    Memory must not grow with the number of batches.
    """

    #: How often the layer ran; 0 afterwards means that the model never calls it as a module.
    calls: int = 0

    @abstractmethod
    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Take in one call.

        Args:
            module: the layer.
            inputs: its positional inputs; valid only during the call.
            output: its output; valid only during the call.
        """


class GradientCollector(ABC):
    """Gathers a statistic of one layer's output and the loss's gradient with respect to it."""

    calls: int = 0

    @abstractmethod
    def see_gradient(self, module: nn.Module, output: Tensor, gradient: Tensor) -> None:
        """Take in one call: the output and the gradient, of one shape."""


class TensorCollector(Collector):
    """Gathers a statistic of a layer's first input or its output.

    Args:
        of: which of the two.
        axis: the dimension of channels, negative from the end; `None` takes the layer's own: 1 for
            convolutions and batch norms, the last for everything else.
    """

    def __init__(self, of: Side = "input", axis: int | None = None) -> None:
        self.of, self.axis = of, axis

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        value = (inputs[0] if inputs else None) if self.of == "input" else output
        value = value[0] if isinstance(value, tuple | list) and value else value
        if not isinstance(value, Tensor):
            kind = type(module).__name__
            raise UsageError(f"the {self.of} of a {kind} is a {type(value).__name__}, not a tensor")
        axis = channel_axis(module) if self.axis is None else self.axis
        self.take(value.detach().movedim(axis, -1).flatten(0, -2) if value.dim() > 1 else value[None])

    @abstractmethod
    def take(self, values: Tensor) -> None:
        """Take in values of shape `[rows, channels]`, not to be kept or changed."""


def channel_axis(module: nn.Module) -> int:
    """The dimension of a layer's channels in its input and output."""
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    if isinstance(module, _ConvNd):
        return -len(module.kernel_size) - 1
    return 1 if isinstance(module, _NormBase | nn.GroupNorm) else -1
