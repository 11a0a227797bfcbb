"""The passes that remove structures: how much, which, what is refused and what is reported."""

from __future__ import annotations

import pytest
import torch
from graph_toys_attention import Attention, by_sdpa
from pydantic import ValidationError
from torch import nn

from demiglace.errors import GraphError
from demiglace.graph import Example, ModelGraph, apply_verified
from demiglace.measure import measure
from demiglace.passes import Context
from demiglace_pruners.channels import Channels, ChannelsConfig
from demiglace_pruners.heads import Heads, HeadsConfig
from demiglace_pruners.neurons import Neurons, NeuronsConfig


def lenet() -> ModelGraph:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    return ModelGraph(net, Example((torch.randn(2, 784),)))


def convolutions() -> ModelGraph:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return ModelGraph(net, Example((torch.randn(2, 3, 8, 8),)))


def transformer() -> ModelGraph:
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(10, 24), nn.GELU(), nn.Linear(24, 10))
    return ModelGraph(nn.Sequential(Attention(by_sdpa), mlp), Example((torch.randn(2, 7, 10),)))


def context() -> Context:
    return Context(seed=3, device=torch.device("cpu"))


def prune(model: ModelGraph, editor, where: Context | None = None) -> ModelGraph:
    transaction, verified = apply_verified(model, editor.edits(model, where or context()))
    assert verified is not None
    transaction.commit()
    return model


def channels(model: ModelGraph, where: Context | None = None, **options) -> ModelGraph:
    return prune(model, Channels(ChannelsConfig(**options)), where)


def widths(model: ModelGraph) -> list[int]:
    return [one.weight.shape[0] for one in model.module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]


def test_half_of_lenets_neurons_are_gone_without_masks():
    model = prune(lenet(), Neurons(NeuronsConfig(amount=0.5)))
    assert widths(model) == [150, 50, 10]
    assert sum(parameter.numel() for parameter in model.module.parameters()) <= 126_000
    assert model.masks == {}
    assert model.module[0].out_features == model.module[2].in_features == 150


def test_the_units_of_the_smallest_norm_go():
    model = lenet()
    weight = model.module[0].weight.data
    weak = torch.tensor([7, 30, 299])
    weight[weak] *= 1e-3
    kept = [row for row in range(300) if row not in weak.tolist()]
    before = weight.clone()
    channels(model, amount=0.01, targets=["0"], importance="l1")
    assert torch.equal(model.module[0].weight, before[kept])


def test_every_group_loses_the_same_share_when_local():
    assert widths(channels(convolutions(), amount=0.5)) == [8, 16, 4, 4]


def test_batch_norm_scales_rank_over_all_groups():
    model = convolutions()
    model.module[1].weight.data[:12] = 1e-3
    where = context()
    pruned = channels(model, where, amount=0.25, scope="global", importance="batchnorm")
    assert widths(pruned) == [4, 32, 8, 4]
    assert "says nothing" in where.left_alone["6"]


def test_equal_scores_spread_over_groups():
    pruned = channels(convolutions(), amount=0.5, scope="global", importance="batchnorm")
    assert widths(pruned) == [8, 16, 8, 4]


def test_isomorphic_ranking_lets_only_groups_of_one_shape_compete():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 1),
        *(nn.Conv2d(8, 8, 1) for _ in range(2)),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 2, 1),
    ]
    model = ModelGraph(nn.Sequential(*layers), Example((torch.randn(2, 3, 4, 4),)))
    pruned = channels(model, amount=0.5, scope="isomorphic")
    # The group before the norm has another shape: it loses its own half.
    assert pruned.module[2].out_channels == 4
    assert pruned.module[0].out_channels + pruned.module[1].out_channels == 8


@pytest.mark.parametrize("of", ["parameters", "macs"])
def test_a_share_of_the_whole_model_is_reached(of):
    from torch.utils.flop_counter import FlopCounterMode

    def figure(model):
        if of == "parameters":
            return sum(parameter.numel() for parameter in model.module.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.module.eval()(*model.example.args)
        return counter.get_total_flops()

    model = convolutions()
    before = figure(model)
    after = figure(channels(model, amount=0.6, of=of))
    assert 0.6 <= 1 - after / before < 0.72


def test_the_promised_parameters_are_what_is_left():
    where, model = context(), convolutions()
    channels(model, where, amount=0.5)
    [asked] = where.asked
    assert asked.figure == "parameters"
    assert asked.value == sum(model.module.get_parameter(name).numel() for name in asked.over)


def test_limits_hold():
    assert widths(channels(convolutions(), amount=0.9, min_kept=6)) == [6, 6, 6, 4]
    assert widths(channels(convolutions(), amount=0.6, round_to=8)) == [8, 16, 8, 4]


def test_an_amount_that_would_empty_layers_keeps_one_unit():
    assert widths(channels(convolutions(), amount=1.0)) == [1, 1, 1, 4]


def test_heads_go_whole_and_alone():
    model = prune(transformer(), Heads(HeadsConfig(amount=0.5)))
    assert model.module.get_parameter("0.qkv.weight").shape == (36, 10)
    assert model.module.get_parameter("1.0.weight").shape == (24, 10)


def test_neurons_leave_heads_alone():
    model = prune(transformer(), Neurons(NeuronsConfig(amount=0.5)))
    assert model.module.get_parameter("0.qkv.weight").shape == (72, 10)
    assert model.module.get_parameter("1.0.weight").shape == (12, 10)


def test_ignored_layers_and_all_that_is_tied_to_them_stay():
    where = context()
    pruned = channels(convolutions(), where, amount=0.5, ignore=["3"])
    assert widths(pruned) == [8, 32, 4, 4]
    assert "ignored" in where.left_alone["3"]


def test_what_cannot_be_removed_is_reported_with_its_reason():
    where = context()
    channels(convolutions(), where, amount=0.5)
    assert "output of the model" in where.left_alone["9.weight"]


@pytest.mark.parametrize("options", [{"targets": ["9"]}, {"targets": ["2"]}])
def test_selectors_that_match_nothing_to_remove_are_an_error(options):
    with pytest.raises(GraphError, match="select no channels"):
        channels(convolutions(), amount=0.5, **options)


def test_weights_that_are_not_a_number_are_an_error():
    model = convolutions()
    model.module[3].weight.data[2] = float("nan")
    with pytest.raises(GraphError, match="'3' are not finite"):
        channels(model, amount=0.5)


def test_masked_weights_count_as_zero_and_masks_are_cut_along():
    model = lenet()
    keep = torch.ones(300, 784, dtype=torch.bool)
    keep[100:] = False
    model.masks["0.weight"] = keep
    channels(model, amount=2 / 3, targets=["0"])
    assert model.masks["0.weight"].shape == (100, 784)
    assert model.masks["0.weight"].all()


def test_the_draw_follows_the_seed():
    one, other = (
        list(Channels(ChannelsConfig(amount=0.5, importance="random")).edits(lenet(), context()))
        for _ in "ab"
    )
    assert one == other


@pytest.mark.parametrize(
    "options", [{"amount": 1.5}, {"amount": 0.5, "min_kept": 0}, {"amount": 0.5, "scope": "all"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        ChannelsConfig(**options)


def test_the_plan_says_the_amount_in_words():
    assert ChannelsConfig(amount=0.5).words().startswith("remove 50 % of the channels of each group")
    words = HeadsConfig(amount=0.25, of="macs", scope="global").words()
    assert "until 25 % of the model's multiply-accumulates are gone" in words


class Recorded(Channels):
    """Keeps what each ranking saw."""

    def _scores(self, model, groups, context):
        found = super()._scores(model, groups, context)
        self.__dict__.setdefault("seen", []).append([(group.units, scores) for group, scores in found])
        return found


def test_steps_reach_the_amount_and_rank_what_is_left_anew():
    editor = Recorded(ChannelsConfig(amount=0.5, steps=4))
    assert widths(prune(convolutions(), editor)) == [8, 16, 4, 4]
    assert [[units for units, _ in one] for one in editor.seen] == [
        [16, 32, 8], [14, 28, 7], [12, 24, 6], [10, 20, 5],
    ]  # fmt: skip


def test_steps_of_a_ranking_that_does_not_change_remove_what_one_step_does():
    """A batch norm's scales are the same whatever else is gone."""
    states = []
    for steps in (1, 3):
        model = convolutions()
        torch.manual_seed(1)
        for norm in (model.module[1], model.module[4]):
            norm.weight.data.uniform_(0.5, 1.5)
        channels(model, amount=0.5, importance="batchnorm", steps=steps)
        states.append(model.module.state_dict())
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())


@pytest.mark.parametrize("of", ["parameters", "macs"])
@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
def test_steps_reach_a_share_of_the_whole_model(scope, of):
    model = convolutions()
    before = getattr(measure(model, model.example), of)
    channels(model, amount=0.6, of=of, scope=scope, steps=3)
    assert 0.6 <= 1 - getattr(measure(model, model.example), of) / before < 0.75


def test_a_row_that_loses_what_made_it_strong_goes_in_the_next_step():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.tensor([0.1, 1.0, 2.0, 3.0])))
        net[1].weight.copy_(torch.diag(torch.tensor([5.0, 1.0, 2.0, 3.0])))
    model = ModelGraph(net, Example((torch.randn(2, 4),)))
    kept = []
    for steps in (1, 2):
        edits = Channels(ChannelsConfig(amount=0.5, steps=steps)).edits(model, context())
        kept += [
            one.kept
            for one in edits
            if (getattr(one, "tensor", ""), getattr(one, "dim", 1)) == ("1.weight", 0)
        ]
    # Row 0 is the strongest by the column of the first layer's weakest unit, which goes at once.
    assert kept == [(0, 3), (2, 3)]


def test_steps_on_a_model_that_a_cut_makes_a_graph_go_on_there():
    where = context()
    pruned = prune(transformer(), Channels(ChannelsConfig(amount=0.5, steps=2)), where)
    [asked] = where.asked
    assert asked.value == sum(pruned.module.get_parameter(name).numel() for name in asked.over)
    assert pruned.module.get_parameter("0.qkv.weight").shape == (36, 10)


def test_the_plan_tells_the_steps():
    assert ChannelsConfig(amount=0.5, steps=3).words().endswith("l2, in 3 steps, each ranked anew")
