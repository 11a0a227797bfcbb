"""`repair.batchnorm`."""

import pytest
import torch
from torch import nn

from demiglace.graph import ModelGraph
from demiglace_repairs.batchnorm import BatchnormConfig, BatchnormRepair


def batchnorm(**options):
    return BatchnormRepair(BatchnormConfig(**options))


def test_the_statistics_are_those_of_all_examples_together(repair):
    model = ModelGraph(nn.Sequential(nn.BatchNorm1d(4)).eval())
    inputs = torch.randn(90, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    repair(batchnorm(), model, None, inputs, size=40)
    torch.testing.assert_close(model.module[0].running_mean, inputs.mean(0))
    torch.testing.assert_close(model.module[0].running_var, inputs.var(0))


def test_a_norm_sees_what_the_norms_before_it_will_give(repair, convnet):
    model, inputs = convnet
    model.module[0].weight.data *= 7
    repair(batchnorm(), model, None, inputs, size=64)
    middle = model.module[:4](inputs)
    torch.testing.assert_close(model.module[4].running_mean, middle.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    # The first norm divides by the biased variance of a batch here, later by the unbiased one of all.
    torch.testing.assert_close(model.module[4].running_var, middle.var((0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_it_undoes_a_shift_of_the_inputs(repair, convnet, missed):
    model, inputs = convnet
    repair(batchnorm(), model, None, inputs, size=64)
    original = model.copy()
    model.module[0].weight.data *= 3
    before = missed(model, original, inputs)
    repair(batchnorm(), model, None, inputs, size=64)
    assert missed(model, original, inputs) < 1e-3 * before


def test_a_model_without_batch_norms_is_refused_before_it_runs(mlp):
    [problem] = batchnorm().preflight(mlp)
    assert "no batch normalization" in problem.message


@pytest.mark.parametrize("rows", [1, 2])
def test_single_examples_have_no_variance_and_do_no_harm(repair, rows):
    model = ModelGraph(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval())
    inputs = torch.randn(rows, 3)
    context = repair(batchnorm(), model, None, inputs, size=1)
    assert all(value.isfinite().all() for value in model.module.state_dict().values())
    assert bool(context.left_alone) == (rows == 1)


def test_only_the_selected_norms_change(repair, convnet):
    model, inputs = convnet
    before = model.copy()
    repair(batchnorm(targets=["4"]), model, None, inputs)
    assert torch.equal(model.module[1].running_mean, before.module[1].running_mean)
    assert not torch.equal(model.module[4].running_mean, before.module[4].running_mean)
