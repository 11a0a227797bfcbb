"""`prune.structured_norm`: slices, and what would keep their channels alive."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from demiglace.graph import Example, ModelGraph
from demiglace_pruners.structured_norm import StructuredNorm, StructuredNormConfig


def half(**options):
    return StructuredNorm(StructuredNormConfig(amount=0.5, **options))


def alive(net, inputs):
    """How many channels of the output are not zero everywhere, in train and in eval mode."""
    counts = []
    for mode in (True, False):
        output = net.train(mode)(inputs)
        counts.append(int(output.transpose(0, 1).flatten(1).any(1).sum()))
    return counts


def randomised(net):
    """Every parameter and statistic drawn, so that no bias or mean is zero by itself."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("norm", [1, 2, 3.5, "inf"])
def test_the_slices_of_the_smallest_norm_go(prune, norm):
    conv = nn.Conv2d(3, 8, 3)
    norms = conv.weight.detach().flatten(1).norm(float(norm), dim=1)
    prune(ModelGraph(conv), half(norm=norm))
    gone = ~conv.weight.detach().flatten(1).any(1)
    assert int(gone.sum()) == 4
    assert norms[gone].max() < norms[~gone].min()


def test_a_pruned_channel_is_zero_and_not_its_bias(prune):
    """`torch.nn.utils.prune.ln_structured` leaves the bias alive."""
    conv = randomised(nn.Conv2d(3, 8, 3))
    model = ModelGraph(conv)
    prune(model, half())
    assert alive(conv, torch.rand(2, 3, 6, 6)) == [4, 4]
    assert torch.equal(model.masks["bias"], model.masks["weight"].flatten(1).any(1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.scale = nn.Parameter(torch.ones(8))
        self.shift = nn.Parameter(torch.ones(8))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.ones(8))

    def forward(self, x):
        y = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.batch_norm(y, self.mean, self.variance, self.scale, self.shift, self.training)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (4, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), (4, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.GroupNorm(4, 8)), (4, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True)), (4, 3, 6, 6)),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)), (4, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), (4, 5)),
        (lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8)), (4, 5)),
        (lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.1), nn.RMSNorm(8)), (4, 5)),
        (Functional, (4, 3, 6, 6)),
    ],
)
def test_the_vectors_of_the_normalization_that_follows_go_too(prune, net, shape):
    net = randomised(net())
    dim = 1 if isinstance(net, nn.Sequential) and isinstance(net[0], nn.ConvTranspose2d) else 0
    context = prune(ModelGraph(net, Example((torch.rand(shape),))), half(dim=dim))
    assert context.left_alone == {}
    assert alive(net, torch.rand(shape)) == [4, 4]


class Reshaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.one(x)) + self.norm(self.other(x))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Reshaped, "runs over other axes"),
        (Shared, "shares its weight"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), "has no weight"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 4, 4])), "runs over other axes"),
    ],
)
def test_what_cannot_be_made_zero_is_left_alone_with_its_reason(prune, net, reason):
    model = ModelGraph(net(), Example((torch.rand(2, 3, 6, 6),)))
    context = prune(model, half())
    assert reason in " ".join(context.left_alone.values())
    assert model.masks == {}


def test_a_model_that_cannot_be_traced_is_left_alone_only_if_it_has_norm_vectors(prune):
    context = prune(ModelGraph(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), half())
    assert "cannot be traced" in context.left_alone["0.weight"]
    assert prune(ModelGraph(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())), half()).left_alone == {}


def test_a_norm_behind_an_addition_belongs_to_the_sum(prune):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(x + self.conv(x))

    model = ModelGraph(Residual(), Example((torch.rand(2, 8, 4, 4),)))
    prune(model, half())
    assert set(model.masks) == {"conv.weight", "conv.bias"}


def test_input_slices_leave_the_bias_alone(prune):
    model = ModelGraph(nn.Linear(8, 4))
    prune(model, half(dim=1))
    assert set(model.masks) == {"weight"}
    assert int((~model.module.weight.any(0)).sum()) == 4


def test_the_channels_of_a_grouped_transposed_convolution_go_in_every_group(prune):
    conv = randomised(nn.ConvTranspose2d(4, 8, 3, groups=2))
    prune(ModelGraph(conv), half(dim=1))
    assert alive(conv, torch.rand(2, 4, 5, 5)) == [4, 4]


def test_both_biases_of_a_shared_weight_go(prune):
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    model = ModelGraph(net)
    prune(model, half())
    assert set(model.masks) == {"0.weight", "0.bias", "1.bias"}


def test_recurrent_gates_are_left_alone(prune):
    context = prune(nn.LSTM(4, 4), half())
    assert set(context.left_alone) == {"weight_ih_l0", "weight_hh_l0"}


@pytest.mark.parametrize(("of", "expected"), [("total", 4), ("remaining", 6)])
def test_half_of_the_channels_twice(prune, of, expected):
    layer = nn.Linear(6, 8)
    for _ in range(2):
        prune(ModelGraph(layer), half(of=of))
    assert int((~layer.weight.any(1)).sum()) == expected
