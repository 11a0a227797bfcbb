"""Layers of classes derived from torch's, which do more than these or something else."""

import copy
from functools import partial

import pytest
import torch
from quantizing import STATIC, VALUES, distance, run, training
from torch import nn
from torch.nn import functional as F

import demiglace
from demiglace.quantization import floating, held_weights


class NormWithActivation(nn.BatchNorm2d):
    """As libraries write it: the norm, then its children."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.SiLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class NormWithMore(nn.BatchNorm2d):
    """It computes what none of its children does."""

    def forward(self, x):
        return super().forward(x).abs()


class NormWithGate(nn.BatchNorm2d):
    """Its child does not run on what the norm gives."""

    def __init__(self, channels):
        super().__init__(channels)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x):
        x = super().forward(x)
        return x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]


class NormedNet(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 8, 3, bias=False), norm(8), nn.Linear(8 * 4, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x.view(-1, 1, 4, 4))).flatten(1))


NORMS = [(NormWithActivation, True), (NormWithMore, False), (NormWithGate, False)]


@pytest.mark.parametrize("one", [STATIC, training("quantize.qat")])
@pytest.mark.parametrize(("norm", "folded"), NORMS)
def test_what_a_norms_module_does_beside_the_norm_stays_when_it_is_folded(one, norm, folded, tmp_path):
    torch.manual_seed(0)
    module = NormedNet(norm)
    module.norm.running_var.fill_(0.3)
    original = copy.deepcopy(module)
    result = run(module, one, out=tmp_path / "run")
    assert distance(module, original) < 0.1
    assert isinstance(module.norm, nn.BatchNorm2d) is not folded
    opened = demiglace.load(tmp_path / "run", model=lambda: NormedNet(norm))
    assert torch.equal(opened(VALUES), result.model(VALUES))


class ConditionedNorm(nn.BatchNorm2d):
    """It takes more than the norm does."""

    def forward(self, x, shift):
        return super().forward(x) + shift


class ConditionedNet(NormedNet):
    def forward(self, x):
        return self.head(self.norm(self.conv(x.view(-1, 1, 4, 4)), x.mean()).flatten(1))


@pytest.mark.parametrize("one", [STATIC, training("quantize.qat")])
def test_a_norm_that_takes_more_inputs_is_not_folded(one):
    module = ConditionedNet(ConditionedNorm)
    original = copy.deepcopy(module)
    run(module, one)
    assert isinstance(module.norm, ConditionedNorm)
    assert distance(module, original) < 0.1


class PaddedConv(nn.Conv2d):
    """It pads what it gets, as libraries write it for networks of other frameworks."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class StandardizedConv(nn.Conv2d):
    """It computes with its weight standardized."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


class CastingLinear(nn.Linear):
    def forward(self, x):
        return F.linear(x.to(self.weight.dtype), self.weight, bias=self.bias.to(x.dtype))


class OwnForwards(nn.Module):
    """Layers of classes derived from torch's, each with a forward of its own."""

    def __init__(self):
        super().__init__()
        self.padded, self.norm = PaddedConv(1, 8, 2, bias=False), nn.BatchNorm2d(8)
        self.standardized, self.head = StandardizedConv(8, 8, 3), CastingLinear(8 * 4, 3)

    def forward(self, x):
        x = self.norm(self.padded(x.view(-1, 1, 4, 4))).relu()
        return self.head(self.standardized(x).flatten(1))


OWN_FORWARDS = [
    {"use": "quantize.weight_only"},
    {"use": "quantize.weight_only", "bits": 4, "method": "gptq"},
    {"use": "quantize.dynamic"},
    {"use": "quantize.rate", "bits_per_weight": 6.0},
    STATIC,
    training("quantize.qat"),
    training("share.kmeans", clusters=64),
]


@pytest.mark.parametrize("one", OWN_FORWARDS, ids=str)
def test_layers_with_a_forward_of_their_own_keep_it(one, tmp_path):
    torch.manual_seed(0)
    module = OwnForwards()
    original = copy.deepcopy(module)
    result = run(module, one, out=tmp_path / "run")
    assert sorted(name for name, _ in held_weights(module)) == [
        "head.weight",
        "padded.weight",
        "standardized.weight",
    ]
    assert isinstance(module.padded, PaddedConv)
    assert 0 < distance(module, original) < 0.2
    opened = demiglace.load(tmp_path / "run", model=OwnForwards)
    assert torch.equal(opened(VALUES), result.model(VALUES))
    assert type(floating(module).padded) is PaddedConv


def test_a_forward_that_does_not_read_the_weight_by_its_name_is_left_alone():
    class Behind(nn.Linear):
        def forward(self, x):
            return F.linear(x, self._parameters["weight"], self.bias)

    module = nn.Sequential(Behind(16, 16), nn.Linear(16, 3))
    result = run(module, {"use": "quantize.weight_only"})
    assert "may not read its weight by its name" in result.steps[0].left_alone["0"]
    assert [name for name, _ in held_weights(module)] == ["1.weight"]


def test_a_forward_that_was_replaced_in_an_object_is_left_alone():
    module = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 3))
    module[0].forward = partial(F.linear, weight=torch.eye(16))
    result = run(module, {"use": "quantize.weight_only"})
    assert result.steps[0].left_alone == {"0": "its forward was replaced in this object"}
    assert torch.equal(module[0](VALUES), VALUES)
