"""Criteria that look at data, each against what it means computed another way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from demiglace.calibration import calibration_batches
from demiglace.data import Data
from demiglace.errors import GraphError, UsageError
from demiglace.graph import Example, ModelGraph, apply_verified
from demiglace.passes import Context
from demiglace.passes.contract import DATA_CALIBRATION, LABELS
from demiglace.plugins import discover
from demiglace_pruners.channels import Channels, ChannelsConfig
from demiglace_pruners.importance.gathering import gathered

CRITERIA = discover().criteria
GATHERED = {name: one.gathers for name, one in CRITERIA.items() if one.gathers != "nothing"}


def criterion(name):
    return discover().criterion(name)


INPUTS = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(48) % 4
IMAGES = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def perceptron():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    return ModelGraph(net, Example((INPUTS[:2],)))


def convolution(**options):
    """A convolution whose channels a linear layer reads at four places each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, **options), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4))
    return ModelGraph(net, Example((IMAGES[:2],)))


def context(inputs=INPUTS, labels=CLASSES):
    parts = zip(inputs.split(16), labels.split(16), strict=True) if labels is not None else inputs.split(16)
    return Context(seed=0, device=torch.device("cpu"), data=Data.of(list(parts)))


def scores(name, model, where, examples=48, batch_size=16):
    """The scores of the model's only group."""
    batches = calibration_batches(where, examples, batch_size)
    [group] = model.groups
    return criterion(name)(group, gathered(GATHERED[name], model, [group], batches, where))


def close(found, expected):
    return torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-7)


def hidden(model, inputs=INPUTS):
    """What the second layer reads: `[rows, units]`."""
    return torch.relu(model.module[0](inputs)).detach()


def test_activation_statistics_are_those_of_what_is_read():
    model = perceptron()
    seen = hidden(model)
    assert close(scores("activation_mean", model, context()), seen.mean(0))
    assert close(scores("activation_variance", model, context()), seen.var(0, correction=0))
    assert close(scores("apoz", model, context()), (seen > 0).double().mean(0))


def test_wanda_is_weights_times_the_norms_of_their_inputs():
    model = perceptron()
    norms = INPUTS.square().mean(0).sqrt()
    expected = (model.module[0].weight.detach().abs() * norms).sum(1)
    assert close(scores("wanda", model, context()), expected)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(8, 8, 3, padding=1),
        lambda: nn.Conv2d(8, 8, 3, padding=1, groups=2),
        lambda: nn.Conv2d(8, 16, 1, groups=4),
        lambda: nn.ConvTranspose2d(8, 6, 3, padding=1),
    ],
    ids=["plain", "grouped", "more outputs than inputs", "transposed"],
)
def test_wanda_finds_the_input_of_each_weight_of_a_convolution(layer):
    torch.manual_seed(0)
    images = torch.randn(16, 8, 4, 4) * torch.arange(1.0, 9).view(8, 1, 1)
    net = nn.Sequential(layer(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    net(images)
    model, where = ModelGraph(net, Example((images[:2],))), context(images, CLASSES[:16])
    batches = calibration_batches(where, 16, 16)
    norms, conv = images.square().mean((0, 2, 3)).sqrt(), net[0]
    # Weights of magnitude |w| on channels that hold their norm everywhere: each output is its unit's score.
    magnitudes = conv.weight.detach().abs().sum((2, 3), keepdim=True)
    compute = F.conv_transpose2d if isinstance(conv, nn.ConvTranspose2d) else F.conv2d
    expected = compute(norms.view(1, 8, 1, 1), magnitudes, groups=conv.groups).flatten()
    for group in model.groups:
        [made] = (one for one in group.slices if one.tensor == "0.weight" and one.role == "produced")
        found = criterion("wanda")(group, gathered("inputs", model, [group], batches, where))
        assert close(found, expected[made.index].sum(1))
    assert model.groups


def test_a_channel_that_is_read_at_many_places_counts_all_of_them():
    model, where = convolution(), context(IMAGES, CLASSES[:16])
    seen = hidden(model, IMAGES).flatten(2)
    assert close(scores("activation_mean", model, where), seen.mean((0, 2)))


def through_gates(model, where, loss):
    """The mean over batches of the loss's gradient with respect to a factor of each unit."""
    batches = list(calibration_batches(where, 48, 16))
    assert len(batches) == 3
    found = []
    for batch in batches:
        gates = torch.ones(8, requires_grad=True)
        outputs = model.module[2](torch.relu(model.module[0](*batch.args)) * gates)
        found.append(torch.autograd.grad(loss(outputs, batch.labels), gates)[0].abs())
    return torch.stack(found).mean(0)


@pytest.mark.parametrize(
    ("labels", "loss"),
    [(CLASSES, F.cross_entropy), (INPUTS[:, :4], F.mse_loss)],
    ids=["classes", "squared error"],
)
def test_taylor_is_the_losss_gradient_with_respect_to_a_gate_at_each_unit(labels, loss):
    model, where = perceptron(), context(labels=labels)
    assert close(scores("taylor", model, where), through_gates(model, where, loss))


def test_taylor_takes_the_callers_own_loss():
    model, where = perceptron(), context(labels=None)
    where.step = lambda module, batch: batch.run(module).square().mean()
    expected = through_gates(model, where, lambda outputs, labels: outputs.square().mean())
    assert close(scores("taylor", model, where), expected)


def test_taylor_looks_at_frozen_layers_too_and_leaves_them_frozen():
    model, free = perceptron(), perceptron()
    model.module.requires_grad_(False)
    assert close(scores("taylor", model, context()), scores("taylor", free, context()))
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert all(parameter.grad is None for parameter in free.module.parameters())


def test_apoz_says_nothing_where_no_relu_makes_zeros():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    assert scores("apoz", ModelGraph(net, Example((INPUTS[:2],))), context()) is None


@pytest.mark.parametrize("name", sorted(GATHERED))
def test_units_that_do_nothing_go_first(name):
    model = perceptron()
    dead = [1, 4, 6]
    with torch.no_grad():
        model.module[0].weight[dead], model.module[0].bias[dead] = 0, -1
    kept = [unit for unit in range(8) if unit not in dead]
    expected = model.module[0].weight.detach()[kept].clone()
    editor = Channels(ChannelsConfig(amount=3 / 8, importance=name))
    transaction, _ = apply_verified(model, list(editor.edits(model, context())))
    transaction.commit()
    assert torch.equal(model.module[0].weight, expected)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_taylor_scores_heads_whose_projection_no_module_call_shows():
    torch.manual_seed(0)
    tokens, labels = torch.randn(8, 5, 16), torch.randn(8, 5, 16)
    model = ModelGraph(Heads().eval(), Example((tokens[:2],)))
    where = context(tokens, labels)
    [group] = (one for one in model.groups if one.heads)
    found = criterion("taylor")(
        group, gathered("changes", model, [group], calibration_batches(where, 8, 8), where)
    )
    weight = model.module.attention.out_proj.weight
    [gradient] = torch.autograd.grad(F.mse_loss(model.module(tokens), labels), weight)
    expected = (weight.detach() * gradient).sum(0).unflatten(0, (4, 4)).sum(1).abs()
    assert close(found, expected)


def test_channels_of_a_grouped_reader_are_not_mistaken_for_others():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(128, 4)]
    model, where = ModelGraph(nn.Sequential(*layers), Example((IMAGES[:2],))), context(IMAGES, CLASSES[:16])
    by_name = {group.name: group for group in model.groups}
    batches = calibration_batches(where, 16, 16)
    statistics = gathered("inputs", model, list(by_name.values()), batches, where)
    assert criterion("activation_mean")(by_name["0"], statistics) is None


def test_what_a_criterion_needs_stands_in_the_contract():
    assert ChannelsConfig(amount=0.5).contract().needs.isdisjoint({DATA_CALIBRATION, LABELS})
    for name in GATHERED:
        held = ChannelsConfig(amount=0.5, importance=name).contract().needs
        assert DATA_CALIBRATION in held
        assert (LABELS in held) == (name == "taylor")
        assert "on 1024 examples" in ChannelsConfig(amount=0.5, importance=name).words()


def test_missing_data_and_labels_are_refused():
    model = perceptron()
    nothing = Context(seed=0, device=torch.device("cpu"))
    with pytest.raises(UsageError, match="no data"):
        list(Channels(ChannelsConfig(amount=0.5, importance="wanda")).edits(model, nothing))
    with pytest.raises(UsageError, match="no labels"):
        list(Channels(ChannelsConfig(amount=0.5, importance="taylor")).edits(model, context(labels=None)))


def test_data_that_is_not_a_number_is_refused():
    spoilt = INPUTS.clone()
    spoilt[3, 2] = float("nan")
    for name in GATHERED:
        with pytest.raises(GraphError, match=r"NaN|not finite"):
            list(Channels(ChannelsConfig(amount=0.5, importance=name)).edits(perceptron(), context(spoilt)))
