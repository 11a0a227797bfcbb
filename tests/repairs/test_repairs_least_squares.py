"""`repair.least_squares`."""

import pytest
import torch
from torch import nn

from demiglace.errors import UsageError
from demiglace.graph import Cut, Mask, ModelGraph, SetAttr, apply
from demiglace_repairs.least_squares import LeastSquaresConfig, LeastSquaresRepair


def least_squares(**options):
    return LeastSquaresRepair(LeastSquaresConfig(**options))


def masked_model(model, share, seed=0):
    draw = torch.Generator().manual_seed(seed)
    edits = [Mask(one.name, torch.rand(one.tensor.shape, generator=draw) > share) for one in model.weights()]
    apply(model, edits).commit()


def test_a_masked_layer_gets_the_weights_of_ordinary_least_squares(repair, inputs):
    model = ModelGraph(nn.Linear(12, 3))
    original = model.copy()
    masked_model(model, 0.5)
    repair(least_squares(damping=1e-8), model, original, inputs)
    wanted = original.module(inputs).detach()
    for row, keep in enumerate(model.masks["weight"]):
        design = torch.cat([inputs[:, keep], torch.ones(400, 1)], 1)
        expected = torch.linalg.lstsq(design, wanted[:, row]).solution
        torch.testing.assert_close(model.module.weight.data[row][keep], expected[:-1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model.module.bias.data[row], expected[-1], rtol=1e-3, atol=1e-3)
    assert (model.module.weight[~model.masks["weight"]] == 0).all()


def test_a_layer_whose_inputs_were_cut_gives_what_it_gave_where_it_can(repair, mlp, inputs, missed):
    """Each odd neuron is made the double of an even one, so that half of the neurons know everything."""
    first, second = mlp.module[0], mlp.module[2]
    first.weight.data[1::2], first.bias.data[1::2] = 2 * first.weight.data[::2], 2 * first.bias.data[::2]
    original = mlp.copy()
    kept = tuple(range(0, 40, 2))
    apply(mlp, [Cut("0.weight", 0, kept), Cut("0.bias", 0, kept), Cut("2.weight", 1, kept)]).commit()
    assert missed(mlp, original, inputs) > 1e-4
    repair(least_squares(damping=1e-8), mlp, original, inputs)
    assert missed(mlp, original, inputs) < 1e-7
    merged = original.module[2].weight[:, ::2] + 2 * original.module[2].weight[:, 1::2]
    torch.testing.assert_close(second.weight, merged, rtol=1e-2, atol=1e-3)


def test_layers_before_the_first_change_stay_as_they_are(repair, mlp, inputs, cut_half):
    original = mlp.copy()
    cut_half(mlp)
    context = repair(least_squares(), mlp, original, inputs)
    assert torch.equal(mlp.module[0].weight, original.module[0].weight[::2])
    assert set(context.figures) == {"2.weight", "4.weight"}
    assert all(one["error"] <= one["error_before"] for one in context.figures.values())


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_masked_models_come_nearer_to_the_original(repair, mlp, inputs, missed, share):
    original = mlp.copy()
    masked_model(mlp, share)
    zeros = {one.name: one.tensor == 0 for one in mlp.weights()}
    before = missed(mlp, original, inputs)
    repair(least_squares(), mlp, original, inputs)
    assert missed(mlp, original, inputs) < 0.5 * before
    assert all(torch.equal(one.tensor == 0, zeros[one.name]) for one in mlp.weights())


def test_zeros_whose_mask_was_dropped_stay_zero(repair, mlp, inputs):
    original = mlp.copy()
    masked_model(mlp, 0.6)
    zeros = {one.name: one.tensor == 0 for one in mlp.weights()}
    mlp.masks.clear()
    repair(least_squares(), mlp, original, inputs)
    assert all(torch.equal(one.tensor == 0, zeros[one.name]) for one in mlp.weights())


def test_channels_cut_twice_are_compared_with_the_right_ones_of_the_original(repair, mlp, inputs, cut_half):
    original = mlp.copy()
    cut_half(mlp)
    cut_half(mlp, kept=(0, 3, 5, 6, 9, 17))
    mlp.module[0].weight.data *= 1.5
    repair(least_squares(damping=1e-8), mlp, original, inputs)
    rows = [0, 6, 10, 12, 18, 34]
    torch.testing.assert_close(mlp.module[0].weight, original.module[0].weight[rows], rtol=1e-3, atol=1e-4)


def test_convolutions_are_repaired_grouped_ones_too(repair, convnet, missed):
    model, inputs = convnet
    original = model.copy()
    kept = (0, 2, 3, 5, 8, 9, 12, 15)
    cuts = [Cut(f"1.{name}", 0, kept) for name in ("weight", "bias", "running_mean", "running_var")]
    apply(
        model,
        [
            Cut("0.weight", 0, kept),
            *cuts,
            # The first four kept channels are of the second convolution's first group.
            Cut("3.weight", 1, (0, 2, 3, 5)),
            SetAttr("0", "out_channels", 8),
            SetAttr("1", "num_features", 8),
            SetAttr("3", "in_channels", 8),
        ],
    ).commit()
    before = missed(model, original, inputs)
    repair(least_squares(damping=1e-4), model, original, inputs, size=16)
    assert missed(model, original, inputs) < 0.3 * before


def test_only_the_selected_layers_are_solved(repair, mlp, inputs):
    original = mlp.copy()
    masked_model(mlp, 0.5)
    context = repair(least_squares(targets=["2"]), mlp, original, inputs)
    assert list(context.figures) == ["2.weight"]


def test_without_an_original_it_says_what_to_do(repair, mlp, inputs):
    with pytest.raises(UsageError, match="no original"):
        repair(least_squares(), mlp, None, inputs)
