"""`repair.bias`."""

import pytest
import torch

from demiglace.graph import Cut, Mask, SetAttr, apply
from demiglace_repairs.bias import BiasConfig, BiasRepair


def bias(**options):
    return BiasRepair(BiasConfig(**options))


def outputs(model, layer, inputs):
    seen = []
    handle = model.module[layer].register_forward_hook(
        lambda module, args, output: seen.append(output.clone())
    )
    with torch.no_grad():
        model.module(inputs)
    handle.remove()
    flat = seen[0].movedim(1, -1).flatten(0, -2)
    return flat.mean(0), flat.var(0)


def test_the_mean_of_what_was_cut_is_in_the_next_bias(repair, mlp, inputs, cut_half):
    original = mlp.copy()
    hidden = torch.relu(original.module[0](inputs)).mean(0)
    folded = original.module[2].bias + original.module[2].weight[:, 1::2] @ hidden[1::2]
    cut_half(mlp)
    repair(bias(scale=False, targets=["2"]), mlp, original, inputs)
    torch.testing.assert_close(mlp.module[2].bias, folded, rtol=1e-4, atol=1e-4)
    assert torch.equal(mlp.module[2].weight, original.module[2].weight[:, ::2])


@pytest.mark.parametrize("scale", [True, False])
def test_every_layer_has_its_means_back_and_its_variances_if_asked(repair, mlp, inputs, cut_half, scale):
    original = mlp.copy()
    cut_half(mlp)
    repair(bias(scale=scale), mlp, original, inputs)
    for layer in (2, 4):
        (mean, variance), (wanted, spread) = outputs(mlp, layer, inputs), outputs(original, layer, inputs)
        torch.testing.assert_close(mean, wanted, rtol=1e-3, atol=1e-3)
        assert torch.allclose(variance, spread, rtol=1e-3) == scale


def test_layers_that_give_what_they_gave_stay_as_they_are(repair, mlp, inputs, cut_half):
    original = mlp.copy()
    cut_half(mlp)
    repair(bias(), mlp, original, inputs)
    assert torch.equal(mlp.module[0].bias, original.module[0].bias[::2])
    assert torch.equal(mlp.module[0].weight, original.module[0].weight[::2])


def test_masks_stay_and_the_outputs_come_nearer(repair, mlp, inputs, missed):
    original = mlp.copy()
    draw = torch.Generator().manual_seed(0)
    masks = [Mask(one.name, torch.rand(one.tensor.shape, generator=draw) > 0.3) for one in mlp.weights()]
    apply(mlp, [*masks, Mask("2.bias", torch.arange(20) > 3)]).commit()
    zeros = {one.name: one.tensor == 0 for one in mlp.weights()}
    before = missed(mlp, original, inputs)
    repair(bias(), mlp, original, inputs)
    assert missed(mlp, original, inputs) < before
    assert all(torch.equal(one.tensor == 0, zeros[one.name]) for one in mlp.weights())
    assert (mlp.module[2].bias[:4] == 0).all()


def test_a_convolution_without_a_bias_is_repaired_by_its_norm(repair, convnet):
    model, inputs = convnet
    original = model.copy()
    kept = tuple(range(0, 16, 2))
    norm = [Cut(f"1.{name}", 0, kept) for name in ("weight", "bias", "running_mean", "running_var")]
    groups = Cut("3.weight", 1, (0, 2, 4, 6))
    sizes = [SetAttr("0", "out_channels", 8), SetAttr("1", "num_features", 8), SetAttr("3", "in_channels", 8)]
    apply(model, [Cut("0.weight", 0, kept), *norm, groups, *sizes]).commit()
    repair(bias(), model, original, inputs, size=16)
    (mean, variance), (wanted, spread) = outputs(model, 4, inputs), outputs(original, 4, inputs)
    torch.testing.assert_close(mean, wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(variance, spread, rtol=1e-3, atol=1e-3)


def test_outputs_that_became_constant_get_their_mean_and_no_infinite_scale(repair, mlp, inputs):
    original = mlp.copy()
    keep = torch.ones(20, 40, dtype=torch.bool)
    keep[7] = False
    apply(mlp, [Mask("2.weight", keep)]).commit()
    repair(bias(), mlp, original, inputs)
    mean, _ = outputs(original, 2, inputs)
    assert mlp.module[2].bias[7].item() == pytest.approx(mean[7].item(), rel=1e-4)
    assert all(value.isfinite().all() for value in mlp.module.state_dict().values())
