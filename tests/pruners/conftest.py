"""What the tests of the pruners share."""

import pytest
import torch

from demiglace.graph import ModelGraph, apply
from demiglace.passes import Context


@pytest.fixture
def prune():
    """A function that applies an editor to a model and gives back the context it reported to."""

    def run(model, editor, amount=None, seed=0):
        model = model if isinstance(model, ModelGraph) else ModelGraph(model)
        context = Context(seed, torch.device("cpu"))
        apply(model, list(editor.edits(model, context, amount))).commit()
        return context

    return run


@pytest.fixture
def zeros():
    """A function that counts the zeros of a model's selected weights."""

    def count(model, *names):
        weights = model.weights(names or ("*",))
        return sum(int((weight.tensor == 0).sum()) for weight in weights)

    return count


@pytest.fixture
def mlp():
    """A perceptron as a model, 4,000 weights, none of them zero."""
    torch.manual_seed(0)
    return ModelGraph(torch.nn.Sequential(torch.nn.Linear(40, 80), torch.nn.ReLU(), torch.nn.Linear(80, 10)))
