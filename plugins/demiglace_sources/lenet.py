"""`lenet`: the two LeNets of the compression literature, for 28 x 28 images of one channel."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.passes import Config, ModelSource
from demiglace_sources.mlp import perceptron

if TYPE_CHECKING:
    from torch import nn


class LenetConfig(Config):
    """LeNet-5 in Caffe's form (20-50-500) or LeNet-300-100, for 28 x 28 images of one channel."""

    variant: Literal["lenet-5", "lenet-300-100"] = "lenet-5"
    """`lenet-5` has layers `conv1`, `conv2`, `fc1`, `fc2`; `lenet-300-100` has `fc1`, `fc2`, `fc3`."""
    num_classes: Annotated[int, Field(ge=1)] = 10
    """Features of the output."""

    def words(self) -> str:
        return f"{self.variant}, {self.num_classes} classes"


class LenetSource(ModelSource[LenetConfig]):
    """Builds a LeNet; takes images of shape `[n, 1, 28, 28]`.

    LeNet-5 is the network of Caffe's MNIST example, which Han et al. (Deep Compression, 2016) and most of
    the literature since compress: 431,080 parameters with ten classes, no activation after a convolution.
    """

    def build(self) -> nn.Module:
        if self.config.variant == "lenet-5":
            return _lenet5(self.config.num_classes)
        return perceptron([784, 300, 100, self.config.num_classes], "ReLU")

    def example_shape(self) -> tuple[int, ...]:
        return (1, 28, 28)


def _lenet5(num_classes: int) -> nn.Sequential:
    from torch import nn

    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(1, 20, kernel_size=5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, kernel_size=5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * 4 * 4, 500),
            act1=nn.ReLU(),
            fc2=nn.Linear(500, num_classes),
        )
    )
