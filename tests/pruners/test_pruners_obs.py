"""`prune.obs`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from demiglace.data import Data
from demiglace.errors import DemiglaceError, GraphError, UsageError
from demiglace.graph import ModelGraph, apply
from demiglace.passes import Context
from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig
from demiglace_pruners.obs import Obs, ObsConfig


def data_of(inputs):
    return Data.of({"calibration": list(inputs.split(16))})


def prune(model, inputs, warnings=None, **options):
    model = model if isinstance(model, ModelGraph) else ModelGraph(model)
    told = [] if warnings is None else warnings
    context = Context(0, torch.device("cpu"), data_of(inputs), on_warning=told.append)
    apply(model, list(Obs(ObsConfig(**options)).edits(model, context))).commit()
    return context


def correlated(rows, columns, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) @ torch.randn(columns, columns, generator=draw)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4))


def missed(model, dense, inputs):
    with torch.no_grad():
        return float((model(inputs) - dense(inputs)).square().mean())


def test_one_weight_of_a_layer_goes_and_it_is_the_one_that_costs_least():
    """By brute force: each weight taken out in turn, the others solved again by `lstsq`."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 1, bias=False).double()
    inputs = correlated(64, 5).double()
    wanted = layer(inputs).detach()
    costs, solutions = [], []
    for out in range(5):
        columns = [column for column in range(5) if column != out]
        found = torch.linalg.lstsq(inputs[:, columns], wanted).solution
        costs.append(float((inputs[:, columns] @ found - wanted).square().sum()))
        solutions.append(found[:, 0])
    prune(layer, inputs, amount=0.2, damping=1e-8)
    best = min(range(5), key=costs.__getitem__)
    assert (layer.weight[0] == 0).nonzero().tolist() == [[best]]
    torch.testing.assert_close(
        layer.weight.data[0][layer.weight[0] != 0], solutions[best], rtol=1e-5, atol=1e-5
    )


def test_a_weight_that_another_can_stand_in_for_goes_before_a_smaller_one():
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, 2.0, 0.5]])
    inputs = torch.randn(200, 3)
    inputs[:, 1] = inputs[:, 0]
    prune(layer, inputs, amount=1 / 3, damping=1e-4)
    kept = layer.weight.data[0]
    assert (kept[:2] == 0).sum() == 1
    assert kept[:2].sum() == pytest.approx(4.0, abs=1e-2)
    assert kept[2] == pytest.approx(0.5, abs=1e-2)


def test_layers_are_solved_on_the_inputs_that_the_pruned_layers_before_them_give():
    inputs, dense, model = correlated(300, 12), mlp(), mlp()
    prune(model, inputs, amount=0.6, damping=1e-6, targets=["0"])
    hidden = torch.relu(model[0](inputs)).detach()
    both = mlp()
    prune(both, inputs, amount=0.6, damping=1e-6, scope="layer")
    torch.testing.assert_close(both[0].weight, model[0].weight)
    keep = both[2].weight.data[0] != 0
    design = torch.cat([hidden[:, keep], torch.ones(300, 1)], 1)
    expected = torch.linalg.lstsq(design, dense(inputs)[:, :1].detach()).solution[:, 0]
    torch.testing.assert_close(both[2].weight.data[0][keep], expected[:-1], rtol=1e-2, atol=1e-3)


def test_it_loses_less_than_magnitude_at_the_same_number_of_zeros():
    inputs, dense = correlated(300, 12), mlp()
    ours, theirs = ModelGraph(mlp()), ModelGraph(mlp())
    context = prune(ours, inputs, amount=0.7)
    apply(theirs, list(Magnitude(MagnitudeConfig(amount=0.7)).edits(theirs, context))).commit()
    assert context.asked[0].value == context.asked[1].value
    assert missed(ours.module, dense, inputs) < 0.5 * missed(theirs.module, dense, inputs)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 1),
    st.sampled_from(["global", "layer"]),
    st.sampled_from(["total", "remaining"]),
    st.floats(0, 0.8),
    st.integers(1, 40),
)
def test_the_zeros_are_exactly_those_asked_for_and_masks_that_are_there_stay(amount, scope, of, before, rows):
    inputs = correlated(rows, 12)
    model = ModelGraph(mlp())
    draw = torch.Generator().manual_seed(1)
    keep = torch.rand(20, 12, generator=draw) >= before
    model.masks["0.weight"] = keep
    model.module[0].weight.data.mul_(keep)
    context = prune(model, inputs, amount=amount, scope=scope, of=of)
    zeros = {one.name: int((one.tensor == 0).sum()) for one in model.weights()}
    assert sum(zeros.values()) == context.asked[0].value
    had, total = int((~keep).sum()), 320
    wanted = had + round(amount * (total - had)) if of == "remaining" else max(had, round(amount * total))
    if scope == "global":
        assert sum(zeros.values()) == wanted
    assert (model.module[0].weight[~keep] == 0).all()
    assert all(
        model.masks[name].logical_not().sum() == count for name, count in zeros.items() if name in model.masks
    )
    assert all(value.isfinite().all() for value in model.module.state_dict().values())


def test_what_lies_under_a_mask_is_not_scored():
    model = ModelGraph(nn.Linear(4, 1, bias=False))
    model.masks["weight"] = torch.tensor([[False, True, True, True]])
    model.module.weight.data = torch.tensor([[100.0, 0.01, 1.0, 1.0]])
    prune(model, torch.randn(100, 4), amount=0.5)
    assert model.masks["weight"].tolist() == [[False, False, True, True]]


def test_a_masked_bias_stays_zero():
    model = ModelGraph(nn.Linear(4, 2))
    model.masks["bias"] = torch.tensor([False, True])
    model.module.bias.data = torch.tensor([0.0, 3.0])
    prune(model, torch.randn(100, 4), amount=0.5)
    assert model.module.bias[0] == 0
    assert float(model.module.bias[1].detach()) == pytest.approx(3, abs=0.5)


def test_weights_of_dead_inputs_go_first_whatever_their_size():
    layer = nn.Linear(6, 3)
    layer.weight.data[:, 2] = 50
    inputs = torch.randn(80, 6)
    inputs[:, 2] = 0
    context = prune(layer, inputs, amount=3 / 18)
    assert (layer.weight[:, 2] == 0).all()
    assert context.figures["weight"]["dead_inputs"] == 1


def test_fewer_examples_than_inputs_are_handled_and_told():
    told = []
    layer = nn.Linear(30, 5)
    prune(layer, torch.randn(7, 30), warnings=told, amount=0.5)
    assert "7 rows" in told[0]
    assert "30 inputs" in told[0]
    assert layer.weight.isfinite().all()
    calm = []
    prune(nn.Linear(6, 5), torch.randn(70, 6), warnings=calm, amount=0.5)
    assert not calm


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_lose_less_than_by_magnitude_grouped_and_depthwise_ones_too(groups):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3))

    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(32, 4, 10, 10, generator=draw)
    inputs = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    ours, theirs, dense = ModelGraph(net()), ModelGraph(net()), net()
    context = prune(ours, inputs, amount=0.6)
    apply(theirs, list(Magnitude(MagnitudeConfig(amount=0.6)).edits(theirs, context))).commit()
    assert missed(ours.module, dense, inputs) < 0.7 * missed(theirs.module, dense, inputs)


def test_global_scope_spares_small_layers_and_empties_none():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 2))
    model = ModelGraph(net)
    prune(model, correlated(300, 12), amount=0.97)
    kept = {one.name: float((one.tensor != 0).float().mean()) for one in model.weights()}
    assert all(share > 0 for share in kept.values())
    assert kept["4.weight"] > 2 * kept["2.weight"]


def test_layer_scope_takes_the_amount_of_each_layer_and_a_schedule_overrides_it():
    model = ModelGraph(mlp())
    prune(model, correlated(50, 12), amount=0.25, scope="layer")
    assert [int((one.tensor == 0).sum()) for one in model.weights()] == [60, 20]
    context = Context(0, torch.device("cpu"), data_of(correlated(50, 12)))
    edits = Obs(ObsConfig(amount=0.9, scope="layer", of="remaining")).edits(model, context, 0.5)
    apply(model, list(edits)).commit()
    assert [int((one.tensor == 0).sum()) for one in model.weights()] == [120, 40]


def test_half_precision_layers_keep_their_dtype():
    model = ModelGraph(mlp().bfloat16())
    prune(model, correlated(60, 12).bfloat16(), amount=0.5)
    assert {one.tensor.dtype for one in model.weights()} == {torch.bfloat16}


def test_frozen_weights_are_pruned_and_stay_frozen():
    model = mlp().requires_grad_(False)
    prune(model, correlated(60, 12), amount=0.5)
    assert not any(one.requires_grad for one in model.parameters())


def test_what_cannot_be_solved_is_left_alone_with_its_reason():
    net = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (1, 6)), nn.ConvTranspose1d(1, 2, 3), nn.Flatten())
    context = prune(net, torch.randn(40, 4), amount=0.5)
    assert "ConvTranspose1d" in context.left_alone["2.weight"]
    assert context.asked[0].over == ("0.weight",)


def test_nothing_that_can_be_solved_is_an_error():
    with pytest.raises(GraphError, match="ConvTranspose1d"):
        prune(nn.ConvTranspose1d(1, 2, 3), torch.randn(4, 1, 8), amount=0.5)


@pytest.mark.parametrize(
    ("net", "inputs", "error", "words"),
    [
        (nn.Linear(4, 2), torch.full((5, 4), torch.nan), GraphError, "calibration data holds NaN"),
        (nn.Linear(4, 2), torch.randn(5, 7), DemiglaceError, "shape"),
        (nn.Linear(4, 2), torch.randn(0, 4), UsageError, "empty"),
    ],
)
def test_bad_data_is_refused_in_words(net, inputs, error, words):
    with pytest.raises(error, match=words):
        prune(net, inputs, amount=0.5)


def test_nan_weights_are_refused_by_name():
    net = mlp()
    net[2].weight.data[0, 0] = torch.nan
    with pytest.raises(GraphError, match=r"'2\.weight' holds NaN"):
        prune(net, torch.randn(20, 12), amount=0.5)
