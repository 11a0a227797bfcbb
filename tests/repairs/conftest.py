"""What the tests of the repairs share."""

import pytest
import torch
from torch import nn

from demiglace.data import Data
from demiglace.graph import Cut, Example, ModelGraph, SetAttr, apply
from demiglace.passes import Context


@pytest.fixture
def inputs():
    """Correlated examples for `mlp`, shape `[400, 12]`, whose means are not 0."""
    draw = torch.Generator().manual_seed(5)
    return torch.randn(400, 12, generator=draw) @ torch.randn(12, 12, generator=draw) + 1


@pytest.fixture
def mlp():
    """A perceptron as a model."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 4))
    return ModelGraph(net, Example((torch.randn(2, 12),)))


@pytest.fixture
def convnet():
    """A convolutional network with batch norms that have seen data, as a model, and inputs for it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 12, 3, groups=2),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 5),
    )
    for norm in (net[1], net[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.momentum = 0.5
    seen = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 10, 10), 3, 1, 1) * 2 + 0.5
    for _ in range(10):
        net(seen)
    return ModelGraph(net.eval(), Example((seen[:2],))), seen


@pytest.fixture
def repair():
    """A function that repairs a model on inputs and gives back the context that the pass reported to."""

    def run(editor, model, original, inputs, size=50):
        data = Data.of({"calibration": list(inputs.split(size))})
        context = Context(0, torch.device("cpu"), data, original=original)
        apply(model, list(editor.edits(model, context))).commit()
        return context

    return run


@pytest.fixture
def cut_half():
    """A function that cuts every second neuron of an `mlp`'s first layer."""

    def run(model, kept=None):
        kept = tuple(range(0, 40, 2)) if kept is None else kept
        edits = [Cut("0.weight", 0, kept), Cut("0.bias", 0, kept), Cut("2.weight", 1, kept)]
        sizes = [SetAttr("0", "out_features", len(kept)), SetAttr("2", "in_features", len(kept))]
        apply(model, [*edits, *sizes]).commit()

    return run


@pytest.fixture
def missed():
    """A function that gives the mean squared difference of two models' outputs."""

    @torch.no_grad()
    def measure(model, original, inputs):
        return float((model.module(inputs) - original.module(inputs)).square().mean())

    return measure
