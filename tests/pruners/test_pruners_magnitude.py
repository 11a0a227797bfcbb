"""`prune.magnitude` and `prune.finalize`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from demiglace.errors import GraphError
from demiglace.graph import ModelGraph, apply
from demiglace.passes import Context
from demiglace_pruners.finalize import Finalize, FinalizeConfig
from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig


def magnitude(**options):
    return Magnitude(MagnitudeConfig(**options))


def pruned(shape, amounts, of):
    torch.manual_seed(1)
    model = ModelGraph(nn.Linear(*shape, bias=False))
    for amount in amounts:
        edits = magnitude(amount=amount, of=of).edits(model, Context(0, torch.device("cpu")))
        apply(model, list(edits)).commit()
    return int((model.module.weight == 0).sum()), model.module.weight.numel()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_amounts_of_the_total_do_not_add_up_and_amounts_of_the_rest_do(shape, amounts):
    zeros, total = pruned(shape, amounts, "total")
    assert zeros == round(max(amounts) * total)
    zeros, total = pruned(shape, amounts, "remaining")
    expected = 0
    for amount in amounts:
        expected += round(amount * (total - expected))
    assert zeros == expected


def test_thirty_per_cent_twice_is_thirty_or_fifty_one():
    assert pruned((100, 100), [0.3, 0.3], "total")[0] == 3000
    assert pruned((100, 100), [0.3, 0.3], "remaining")[0] == 5100


def test_global_scope_takes_the_smallest_of_all_layers_and_layer_scope_of_each(prune, mlp, zeros):
    mlp.module[2].weight.data += 10
    prune(mlp, magnitude(amount=0.5))
    assert zeros(mlp, "0") == 2000
    assert zeros(mlp, "2") == 0
    prune(mlp, magnitude(amount=0.5, scope="layer"))
    assert zeros(mlp, "2") == 400


def test_the_pruned_weights_are_smaller_than_the_kept_ones(prune, mlp):
    before = mlp.module[0].weight.detach().clone()
    prune(mlp, magnitude(amount=0.4, targets=["0"]))
    after = mlp.module[0].weight
    assert before[after == 0].abs().max() < before[after != 0].abs().min()
    assert torch.equal(before[after != 0], after[after != 0])


def test_masked_weights_are_ranked_as_zeros_even_if_values_were_left_under_the_mask(prune, mlp):
    """Pruning written by hand scores what lies under the mask and so prunes fewer or others."""
    weight = mlp.module[0].weight
    mlp.masks["0.weight"] = torch.ones_like(weight, dtype=torch.bool)
    mlp.masks["0.weight"][:20] = False
    weight.data[:20] = 1000
    prune(mlp, magnitude(amount=0.5, targets=["0"]))
    assert int((~mlp.masks["0.weight"]).sum()) == 1600
    assert not mlp.masks["0.weight"][:20].any()
    assert int((weight == 0).sum()) == 1600


def test_a_net_that_is_sparser_than_asked_is_left_as_it_is(prune, mlp, zeros):
    prune(mlp, magnitude(amount=0.6))
    context = prune(mlp, magnitude(amount=0.2))
    assert zeros(mlp) == 2400 == context.asked[0].value


def test_the_promise_holds_what_was_asked(prune, mlp):
    [asked] = prune(mlp, magnitude(amount=0.25)).asked
    assert (asked.figure, asked.value, asked.tolerance) == ("zeros", 1000, 0)
    assert asked.over == ("0.weight", "2.weight")


def test_a_schedule_overrides_the_amount_and_means_the_total(prune, mlp, zeros):
    for amount, expected in [(0.0, 0), (0.2, 800), (0.5, 2000)]:
        prune(mlp, magnitude(amount=0.9, of="remaining"), amount=amount)
        assert zeros(mlp) == expected


def test_a_threshold_takes_what_is_below_it(prune, mlp, zeros):
    below = int((mlp.module[0].weight.abs() < 0.05).sum() + (mlp.module[2].weight.abs() < 0.05).sum())
    context = prune(mlp, magnitude(threshold=0.05))
    assert zeros(mlp) == below == context.asked[0].value > 0


def test_editing_is_pure(mlp):
    before = {name: one.clone() for name, one in mlp.module.state_dict().items()}
    list(magnitude(amount=0.5).edits(mlp, Context(0, torch.device("cpu"))))
    assert all(torch.equal(before[name], one) for name, one in mlp.module.state_dict().items())
    assert not mlp.masks


def test_nan_is_refused_by_name(prune, mlp):
    mlp.module[2].weight.data[3, 4] = torch.nan
    with pytest.raises(GraphError, match=r"'2\.weight' holds NaN"):
        prune(mlp, magnitude(amount=0.5))


def test_a_selection_without_weights_is_refused(prune, mlp):
    with pytest.raises(GraphError, match="no weight that can be pruned"):
        prune(mlp, magnitude(amount=0.5, targets=["1"]))


def test_a_shared_weight_counts_once(prune, zeros):
    net = nn.ModuleDict({"encoder": nn.Linear(10, 10), "decoder": nn.Linear(10, 10)})
    net["decoder"].weight = net["encoder"].weight
    model = ModelGraph(net)
    context = prune(model, magnitude(amount=0.3))
    assert context.asked[0].value == 30
    assert list(model.masks) == ["encoder.weight"]
    assert net["decoder"].weight is net["encoder"].weight


def test_a_shared_weight_is_found_by_either_name_and_ignored_by_either(prune):
    net = nn.ModuleDict({"table": nn.Embedding(10, 4), "head": nn.Linear(4, 10)})
    net["head"].weight = net["table"].weight
    assert [one.name for one in ModelGraph(net).weights()] == ["table.weight"]
    assert [one.name for one in ModelGraph(net).weights(["head"])] == ["table.weight"]
    assert not list(ModelGraph(net).weights(["*"], ["table"]))
    assert not list(ModelGraph(net).weights(["head"], ["table.weight"]))


def test_a_bare_layer_is_pruned_as_the_root(prune):
    conv = nn.Conv2d(3, 8, 3)
    prune(ModelGraph(conv), magnitude(amount=0.5, targets=["."]))
    assert int((conv.weight == 0).sum()) == 108


def test_a_frozen_weight_is_pruned_and_stays_frozen(prune, mlp, zeros):
    mlp.module.requires_grad_(False)
    prune(mlp, magnitude(amount=0.5))
    assert zeros(mlp) == 2000
    assert not any(parameter.requires_grad for parameter in mlp.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype_gets_the_exact_count(prune, mlp, zeros, dtype):
    mlp.module.to(dtype)
    prune(mlp, magnitude(amount=1 / 3))
    assert zeros(mlp) == round(4000 / 3)


def test_a_weight_without_magnitude_is_left_alone_with_its_reason(prune):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.complex64))
    context = prune(net, magnitude(amount=0.5))
    assert "complex64" in context.left_alone["1.weight"]


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_blocks_go_whole_by_their_norm(prune, norm):
    conv = nn.Conv2d(4, 6, 3, bias=False)
    order = 1 if norm == "l1" else 2
    norms = conv.weight.detach().flatten(2).norm(order, dim=2)
    prune(ModelGraph(conv), magnitude(amount=0.25, block=9, norm=norm))
    gone = (conv.weight == 0).flatten(2).all(2)
    assert int(gone.sum()) == 6 == int((conv.weight == 0).sum()) / 9
    assert norms[gone].max() <= norms[~gone].min()


def test_l1_and_l2_rank_blocks_differently(prune):
    rows = torch.tensor([[0.5, 0.5], [0.8, 0.0]])
    for norm, gone in [("l1", 1), ("l2", 0)]:
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data.copy_(rows)
        prune(ModelGraph(layer), magnitude(amount=0.5, block=2, norm=norm))
        assert not layer.weight[gone].any()


def test_a_layer_whose_rows_the_block_does_not_divide_is_left_alone(prune, mlp, zeros):
    context = prune(mlp, magnitude(amount=0.5, block=32))
    assert set(context.left_alone) == {"0.weight", "2.weight"}
    assert zeros(mlp) == 0


@pytest.mark.parametrize("options", [{}, {"amount": 0.3, "threshold": 0.1}])
def test_amount_and_threshold_exclude_each_other(options):
    with pytest.raises(ValidationError, match="either `amount`"):
        MagnitudeConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"amount": 1.5},
        {"amount": -0.1},
        {"amount": "0.3"},
        {"amount": True},
        {"threshold": 0.0},
        {"block": 0},
    ],
)
def test_amounts_out_of_range_or_of_another_type_are_refused(options):
    with pytest.raises(ValidationError):
        MagnitudeConfig(**{"amount": 0.3, **options} if "threshold" not in options else options)


def test_the_words_cannot_be_misread():
    assert "zero 30 % of the weights, zeros included" in MagnitudeConfig(amount=0.3).words()
    assert "that are not zero yet" in MagnitudeConfig(amount=0.3, of="remaining").words()
    assert "in each layer" in MagnitudeConfig(amount=0.3, scope="layer").words()
    assert "below 0.01" in MagnitudeConfig(threshold=0.01).words()


def test_finalize_leaves_zeros_as_ordinary_weights(prune, mlp, zeros):
    prune(mlp, magnitude(amount=0.5))
    prune(mlp, Finalize(FinalizeConfig()))
    assert mlp.masks == {}
    assert zeros(mlp) == 2000


def test_finalize_takes_biases_and_what_is_selected_alone(prune, mlp):
    mlp.masks = {name: one != 5 for name, one in mlp.module.named_parameters()}
    prune(mlp, Finalize(FinalizeConfig(targets=["2"])))
    assert set(mlp.masks) == {"0.weight", "0.bias"}


def test_finalize_without_masks_is_refused(prune, mlp):
    with pytest.raises(GraphError, match="no parameter that has a mask"):
        prune(mlp, Finalize(FinalizeConfig()))


def test_pruning_after_finalize_counts_the_zeros(prune, mlp, zeros):
    prune(mlp, magnitude(amount=0.3))
    prune(mlp, Finalize(FinalizeConfig()))
    prune(mlp, magnitude(amount=0.3))
    assert zeros(mlp) == 1200 == sum(int((~keep).sum()) for keep in mlp.masks.values())
