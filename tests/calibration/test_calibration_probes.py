"""Gradients of random projections: what they sum to, and what they leave as it was."""

from functools import partial

import pytest
import torch
from torch import nn

from demiglace.calibration import OutputGram, calibrate, differentiable, in_parts, projected
from demiglace.data import Batch, Data
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


def test_the_gram_of_gradients_has_a_row_for_each_position_of_a_convolution():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 4, bias=False))
    images, gram = torch.randn(2, 3, 6, 6), OutputGram()
    loss = partial(projected, generator=torch.Generator())
    calibrate(ModelGraph(module), _batches(images) * 600, {"0": gram}, CPU, loss=loss)
    # Each of the 16 positions is read by one tap of each of the 2 outputs.
    taps = module[1].weight.detach().permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(gram.matrix, taps.T @ taps / 16, rtol=0.2, atol=0.01)


def test_batches_are_cut_into_parts_that_hold_every_example_once():
    ids, labels = torch.arange(10), torch.arange(10) + 100
    whole = Batch((torch.randn(10, 3), [ids]), {"ids": ids}, labels)
    parts = list(in_parts([whole, whole], 4))
    assert [len(one) for one in parts] == [4, 4, 2] * 2
    assert torch.equal(torch.cat([one.args[0] for one in parts[:3]]), whole.args[0])
    assert torch.equal(torch.cat([one.args[1][0] for one in parts[:3]]), ids)
    assert torch.equal(torch.cat([one.kwargs["ids"] for one in parts[:3]]), ids)
    assert torch.equal(torch.cat([one.labels for one in parts[:3]]), labels)


@pytest.mark.parametrize("other", [torch.randn(3, 3), torch.tensor(0.5), [torch.zeros(3)], True, None])
def test_batches_that_hold_anything_but_examples_are_left_whole(other):
    whole = Batch((torch.randn(10, 3),), {"other": other})
    assert list(in_parts([whole], 4)) == [whole]
