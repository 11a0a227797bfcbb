"""`prune.quantile`, `prune.random` and `prune.nm`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from demiglace.errors import GraphError
from demiglace.graph import ModelGraph, Weight
from demiglace.passes import Context
from demiglace_pruners.nm import Nm, NmConfig
from demiglace_pruners.quantile import Quantile, QuantileConfig, quantile
from demiglace_pruners.random import Random, RandomConfig


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_quantiles_are_those_of_torch(size, share, seed, few_values):
    tensor = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed))
    tensor = tensor.round() if few_values else tensor
    got = quantile(Weight("w", ".", "Linear", tensor), share)
    assert got == pytest.approx(float(torch.quantile(tensor.abs().double(), share)), rel=1e-6, abs=1e-9)


def test_each_layer_gets_its_own_quantile(prune, mlp, zeros):
    mlp.module[2].weight.data *= 100
    expected = [
        int((one < one.quantile(0.3)).sum()) for one in (layer.weight.abs() for layer in mlp.module[::2])
    ]
    context = prune(mlp, Quantile(QuantileConfig(amount=0.3)))
    assert [zeros(mlp, "0"), zeros(mlp, "2")] == expected
    assert context.asked[0].value == sum(expected)


def test_the_quantile_counts_masked_weights_as_zeros(prune, mlp, zeros):
    for _ in range(2):
        prune(mlp, Quantile(QuantileConfig(amount=0.3)), None)
    assert zeros(mlp) == pytest.approx(1200, abs=2)
    prune(mlp, Quantile(QuantileConfig(amount=0.3, of="remaining")))
    assert zeros(mlp) == pytest.approx(2040, abs=4)


def test_a_quantile_of_zero_leaves_the_layer_alone(prune, mlp):
    mlp.module[0].weight.data[:60] = 0
    context = prune(mlp, Quantile(QuantileConfig(amount=0.3)))
    assert "quantile is 0" in context.left_alone["0.weight"]
    assert list(mlp.masks) == ["2.weight"]


def test_a_quantile_of_nan_is_refused(prune, mlp):
    mlp.module[0].weight.data[0, 0] = torch.nan
    with pytest.raises(GraphError, match=r"'0\.weight' holds NaN"):
        prune(mlp, Quantile(QuantileConfig(amount=0.3)))


def test_quantiles_of_layers_beyond_sixteen_million_weights():
    tensor = torch.arange(17_000_001, dtype=torch.float64).view(1, -1)
    assert quantile(Weight("w", ".", "Linear", tensor), 0.5) == 8_500_000


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_random_takes_the_asked_number(prune, mlp, zeros, scope):
    prune(mlp, Random(RandomConfig(amount=0.2, scope=scope)))
    assert zeros(mlp) == 800
    if scope == "layer":
        assert zeros(mlp, "2") == 160


def test_random_follows_the_seed(mlp):
    def keeps(seed):
        context = Context(seed, torch.device("cpu"))
        return [edit.keep for edit in Random(RandomConfig(amount=0.5)).edits(mlp, context)]

    torch.manual_seed(1)
    first = keeps(7)
    torch.manual_seed(2)
    assert all(torch.equal(one, other) for one, other in zip(first, keeps(7), strict=True))
    assert not torch.equal(first[0], keeps(8)[0])


def test_random_has_no_eye_for_magnitude(prune, mlp):
    weight = mlp.module[0].weight.detach().clone().abs()
    prune(mlp, Random(RandomConfig(amount=0.5, targets=["0"])))
    gone = mlp.module[0].weight == 0
    assert weight[gone].mean() == pytest.approx(float(weight[~gone].mean()), rel=0.1)


def test_a_larger_random_amount_keeps_a_subset(prune, mlp, zeros):
    prune(mlp, Random(RandomConfig(amount=0.5)), amount=0.2)
    few = {name: keep.clone() for name, keep in mlp.masks.items()}
    prune(mlp, Random(RandomConfig(amount=0.5)), amount=0.5)
    assert zeros(mlp) == 2000
    assert all((mlp.masks[name] <= keep).all() for name, keep in few.items())


@pytest.mark.parametrize(
    ("layer", "dim"),
    [
        (nn.Linear(16, 6), 1),
        (nn.Conv2d(8, 5, 3), 1),
        (nn.Conv2d(16, 8, 3, groups=2), 1),
        (nn.ConvTranspose2d(8, 5, 3), 0),
        (nn.Conv1d(300, 2, 1).to(torch.bfloat16), 1),
    ],
)
def test_two_of_every_four_inputs_stay_and_they_are_the_largest(prune, layer, dim):
    before = layer.weight.detach().clone().float().abs().movedim(dim, -1).unflatten(-1, (-1, 4))
    prune(ModelGraph(layer), Nm(NmConfig(pattern="2:4")))
    gone = (layer.weight == 0).movedim(dim, -1).unflatten(-1, (-1, 4))
    assert (gone.sum(-1) == 2).all()
    assert (before.masked_fill(~gone, 0).amax(-1) <= before.masked_fill(gone, torch.inf).amin(-1)).all()


def test_n_of_m_respects_masks(prune):
    layer = nn.Linear(4, 1)
    layer.weight.data.copy_(torch.tensor([[9.0, 1.0, 2.0, 8.0]]))
    model = ModelGraph(layer, masks={"weight": torch.tensor([[False, True, True, True]])})
    context = prune(model, Nm(NmConfig()))
    assert layer.weight.tolist() == [[0, 0, 2, 8]]
    assert context.asked[0].value == 2


def test_of_equal_weights_the_first_go(prune):
    layer = nn.Linear(8, 1)
    layer.weight.data.fill_(1)
    prune(ModelGraph(layer), Nm(NmConfig(pattern="1:4")))
    assert layer.weight.tolist() == [[0, 0, 0, 1, 0, 0, 0, 1]]


def test_what_m_does_not_divide_is_left_alone(prune):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    context = prune(net, Nm(NmConfig()))
    assert context.left_alone == {"0.weight": "4 does not divide its input dimension of 3"}
    assert net[1].weight.eq(0).float().mean() == 0.5
    with pytest.raises(GraphError, match="that 4 divides"):
        prune(net[0], Nm(NmConfig()))


@pytest.mark.parametrize("pattern", ["4:2", "4:4", "0:4", "2-4", "2:", "2:400", ""])
def test_patterns_that_mean_nothing_are_refused(pattern):
    with pytest.raises(ValidationError):
        NmConfig(pattern=pattern)
