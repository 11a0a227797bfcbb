"""What errors in a weight's rows do to the outputs."""

import pytest
import torch
from torch import nn

from demiglace.calibration import row_sensitivities
from demiglace.data import Batch
from demiglace.errors import UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context


def _found(module, batches, **given):
    weights = {name: one for name, one in module.named_parameters() if one.dim() > 1}
    context = Context(0, torch.device("cpu"))
    return row_sensitivities(ModelGraph(module.eval()), weights, batches, context)


def _each(values):
    return [Batch((one[None],)) for one in values]


def test_of_one_layer_it_is_the_mean_square_of_the_inputs():
    values = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    found = _found(nn.Linear(6, 3), _each(values))["weight"]
    torch.testing.assert_close(found, values.double().square().mean().expand(3), rtol=1e-5, atol=0)


def test_it_is_what_small_errors_do_on_average():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 5)).double()
    values = torch.randn(400, 8, dtype=torch.float64)
    found = _found(module, _each(values))["0.weight"]
    measured = []
    with torch.no_grad():
        before, weight = module(values), module[0].weight
        for row in range(12):
            changes = torch.zeros(())
            for column in range(8):
                weight[row, column] += 1e-4
                changes += (module(values) - before).square().sum(1).mean() / 1e-8
                weight[row, column] -= 1e-4
            measured.append(changes / 8)
    ratio = found / torch.stack(measured)
    assert ratio.log().abs().max() < 0.5
    assert ratio.log().mean().abs() < 0.1


def test_words_that_did_not_come_matter_as_much_as_the_rarest_and_frequent_ones_more():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(12, 3))
    batches = [Batch((torch.tensor([[0, 1, 2 + number]]),)) for number in range(8)]
    found = _found(module, batches)["0.weight"]
    assert (found > 0).all()
    assert (found[10:] == found[10]).all()
    assert found[10] < found[2:10].mean() < found[:2].mean() / 4
    once = found[2:10] - found[10]
    torch.testing.assert_close(found[10] * 48, once.sum())


def test_labels_padding_and_frozen_weights_do_not_matter():
    torch.manual_seed(0)
    module = nn.Embedding(9, 4)
    module.weight.requires_grad_(False)
    real = torch.tensor([[1, 1, 0]])
    batch = Batch((torch.tensor([[1, 2, 5]]),), {}, torch.tensor([3]))

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = module

        def forward(self, ids, attention_mask):
            return self.words(ids)

    found = _found(Masked(), [Batch(batch.args, {"attention_mask": real}, batch.labels)])["words.weight"]
    assert found[5] == found[0] < found[1]
    assert not module.weight.requires_grad
    assert module.weight.grad is None


def test_a_weight_that_the_outputs_do_not_depend_on_is_left_out():
    module = nn.Linear(4, 4)
    module.add_module("unused", nn.Linear(4, 4))
    assert set(_found(module, _each(torch.randn(2, 4)))) == {"weight"}


def test_outputs_without_a_gradient_are_refused_with_what_to_do():
    class Classes(nn.Linear):
        def forward(self, values):
            return super().forward(values).argmax(1)

    with pytest.raises(UsageError, match="no gradient reaches"):
        _found(Classes(4, 3), _each(torch.randn(2, 4)))
    with pytest.raises(UsageError, match="empty"):
        _found(nn.Linear(4, 3), [])
