"""Gradients of random projections: what they sum to, and what they leave as it was."""

from functools import partial

import pytest
import torch
from torch import nn

from demiglace.calibration import OutputGram, calibrate, differentiable, projected
from demiglace.data import Data
from demiglace.errors import UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context

CPU = Context(0, torch.device("cpu"))


def _batches(*inputs):
    return list(Data.of(list(inputs)).split("train").batches(1))


class Chosen(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(4, 3)

    def forward(self, x):
        return self.scores(x).argmax(1)


def test_outputs_that_follow_no_weight_are_an_error():
    module = Chosen()
    loss = partial(projected, generator=torch.Generator())
    with pytest.raises(UsageError, match="no gradient reaches the weights from the model's outputs"):
        calibrate(ModelGraph(module), _batches(torch.ones(1, 4)), {"scores": OutputGram()}, CPU, loss=loss)


def test_the_gram_of_gradients_tells_what_a_change_of_the_output_does():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(10, 4, bias=False))
    ids = torch.randint(9, (64, 2))
    gram = OutputGram()
    loss = partial(projected, generator=torch.Generator())
    module.requires_grad_(False)
    with differentiable([module[0].weight]):
        calibrate(ModelGraph(module), _batches(ids) * 300, {"0": gram}, CPU, loss=loss)
    halves = module[2].weight.detach().unflatten(1, (2, 5)).transpose(0, 1)
    expected = (halves.transpose(1, 2) @ halves).mean(0)
    torch.testing.assert_close(gram.matrix, expected, rtol=0.15, atol=0.02)


def test_only_wanted_parameters_of_a_module_are_differentiable_and_all_are_as_before_at_the_end():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].weight.requires_grad_(False)
    module[1].bias.requires_grad_(False)
    before = [one.requires_grad for one in module.parameters()]
    with differentiable([module[0].weight], module):
        assert [one.requires_grad for one in module.parameters()] == [True, False, False, False]
    assert [one.requires_grad for one in module.parameters()] == before
