"""On networks drawn at random, whatever is cut is right: an oracle of its own compares values."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from demiglace.graph import Cut, Example, ModelGraph, apply_verified, removal_edits
from demiglace.graph.plain import PlainGraph, in_double


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm1d(width)
        self.q, self.k, self.v = (nn.Linear(width, 4 * heads) for _ in range(3))
        self.out = nn.Linear(4 * heads, width)

    def forward(self, x):
        tokens = self.norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (
            one(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(2)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


class Excite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return F.gelu(x + self.body(x))


class Join(nn.Module):
    """Concatenates what goes in with what came out."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return torch.cat([self.body(x), x], 1)


class Halves(nn.Module):
    """Splits unevenly, works on one part, puts both together in the other order."""

    def __init__(self, width, first):
        super().__init__()
        self.first = first
        self.body = nn.Conv2d(first, first, 3, padding=1)

    def forward(self, x):
        one, other = x.split([self.first, x.shape[1] - self.first], 1)
        return torch.cat([other, self.body(one).relu()], 1)


class Shuffle(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        b, c, h, w = x.shape
        return x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class Twice(nn.Module):
    """One layer, used twice."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Gate(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        value, gate = self.layer(x).chunk(2, 1)
        return value * gate.sigmoid()


class Scan(nn.Module):
    """A recurrent layer over the positions of an image, in both directions."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.GRU(width, 3, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.layer(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, x.shape[2:])


class Turned(nn.Module):
    """Channels change places, and meet themselves."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x.flip(1) + x.roll(self.by, 1)


class Rescaled(nn.Module):
    """Channels become positions and are averaged back."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return F.avg_pool2d(F.pixel_shuffle(self.layer(x), 2), 2)


def _conv(i, o, **more):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, **more), nn.BatchNorm2d(o), nn.SiLU())


@st.composite
def networks(draw):
    torch.manual_seed(draw(st.integers(0, 2**20)))
    width, layers = 3, [_conv(3, 8)]
    width = 8
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(sorted(BLOCKS)))
        layer, width = BLOCKS[kind](draw, width)
        layers.append(layer)
    pooled = draw(st.booleans())
    head = [nn.AdaptiveAvgPool2d(1)] if pooled else []
    layers += [*head, nn.Flatten(), nn.Linear(width if pooled else width * 16, 3)]
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_(1.0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return net


def _plain(draw, width):
    out = draw(st.sampled_from([4, 6, 8, 12]))
    return _conv(width, out), out


BLOCKS = {
    "plain": _plain,
    "depthwise": lambda draw, width: (_conv(width, 2 * width, groups=width), 2 * width),
    "grouped": lambda draw, width: (_conv(width, 8, groups=2), 8) if width % 2 == 0 else _plain(draw, width),
    "residual": lambda draw, width: (Residual(nn.Sequential(_conv(width, 6), nn.Conv2d(6, width, 1))), width),
    "join": lambda draw, width: (Join(_conv(width, 4)), width + 4),
    "halves": lambda draw, width: (Halves(width, draw(st.integers(1, width - 1))), width),
    "shuffle": lambda draw, width: (Shuffle(2), width) if width % 2 == 0 else _plain(draw, width),
    "twice": lambda draw, width: (Twice(nn.Conv2d(width, width, 1)), width),
    "gate": lambda draw, width: (Gate(nn.Conv2d(width, 12, 1)), 6),
    "excite": lambda draw, width: (Excite(width), width),
    "attention": lambda draw, width: (Attention(width, draw(st.sampled_from([2, 3]))), width),
    "gated linear unit": lambda draw, width: (nn.Sequential(nn.Conv2d(width, 10, 1), nn.GLU(1)), 5),
    "instance norm": lambda draw, width: (
        nn.Sequential(nn.Conv2d(width, 6, 1), nn.InstanceNorm2d(6, affine=True), nn.Tanh()),
        6,
    ),
    "pixel shuffle": lambda draw, width: (Rescaled(nn.Conv2d(width, 20, 1)), 5),
    "scan": lambda draw, width: (Scan(width), 6),
    "shuffle operator": lambda draw, width: (
        (nn.ChannelShuffle(3), width) if width % 3 == 0 else _plain(draw, width)
    ),
    "transposed": lambda draw, width: (
        nn.ConvTranspose2d(width, 6, 1, groups=draw(st.sampled_from([g for g in (1, 2) if width % g == 0]))),
        6,
    ),
    "turned": lambda draw, width: (Turned(draw(st.integers(-3, 3))), width),
    "group norm": lambda draw, width: (
        nn.Sequential(nn.Conv2d(width, 8, 1), nn.GroupNorm(4, 8), nn.ReLU()),
        8,
    ),
}


def masked(net: nn.Module, cuts: list[Cut]) -> nn.Module:
    """A copy with what the cuts remove at zero."""
    zeroed = copy.deepcopy(net).double().eval()
    tensors = zeroed.state_dict()
    for cut in cuts:
        gone = sorted(set(range(tensors[cut.tensor].shape[cut.dim])) - set(cut.kept))
        tensors[cut.tensor].index_fill_(cut.dim, torch.tensor(gone), 0.0)
    return zeroed


def check(net, seed, share):
    generator = torch.Generator().manual_seed(seed)
    model = ModelGraph(net, Example((torch.randn(2, 3, 4, 4),)))
    removed = [
        (
            group,
            torch.randperm(group.units, generator=generator)[
                : min(group.units - 1, int(share * group.units) + 1)
            ],
        )
        for group in model.groups
    ]
    edits = removal_edits(model, removed)
    assume(edits)  # shuffles may tie all channels of a small net to each other: nothing can go
    expected = masked(net, [edit for edit in edits if isinstance(edit, Cut)])
    transaction, verified = apply_verified(model, edits)
    transaction.commit()
    assert verified is not None
    assert verified.equality == "exact"
    found = copy.deepcopy(model.module).double().eval()
    inputs = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    graph = isinstance(found, PlainGraph)
    # A graph makes the zeros that a recurrent layer starts from in the precision it was traced in.
    with torch.no_grad(), in_double(found.graph_data.nodes) if graph else nullcontext():
        torch.testing.assert_close(found(inputs), expected(inputs), rtol=1e-8, atol=1e-9)
    model.module.train()(torch.randn(2, 3, 4, 4)).sum().backward()


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 999), st.sampled_from([0.2, 0.5, 0.8]))
def test_a_cut_network_equals_the_masked_original(net, seed, share):
    check(net, seed, share)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 999), st.sampled_from([0.2, 0.5, 0.8]))
def test_a_cut_network_equals_the_masked_original_over_many_draws(net, seed, share):
    check(net, seed, share)
