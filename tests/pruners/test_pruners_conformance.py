"""Every built-in pruner is an editor as third parties' must be, and every one is tested here."""

import torch
from torch import nn

from demiglace.testing import EditorConformance
from demiglace_pruners import (
    blocks,
    channels,
    demiglace_passes,
    finalize,
    heads,
    magnitude,
    neurons,
    nm,
    obs,
    quantile,
    random,
    structured_norm,
)


class TestMagnitude(EditorConformance):
    spec = magnitude.SPEC
    config = magnitude.MagnitudeConfig(amount=0.3)


class TestMagnitudeOfBlocks(EditorConformance):
    spec = magnitude.SPEC
    config = magnitude.MagnitudeConfig(amount=0.5, block=4, norm="l2", scope="layer")


class TestMagnitudeBelowThreshold(EditorConformance):
    spec = magnitude.SPEC
    config = magnitude.MagnitudeConfig(threshold=0.05)


class TestQuantile(EditorConformance):
    spec = quantile.SPEC
    config = quantile.QuantileConfig(amount=0.3)


class TestRandom(EditorConformance):
    spec = random.SPEC
    config = random.RandomConfig(amount=0.2)


class TestStructuredNorm(EditorConformance):
    spec = structured_norm.SPEC
    config = structured_norm.StructuredNormConfig(amount=0.5)


class TestNm(EditorConformance):
    spec = nm.SPEC
    config = nm.NmConfig()


class TestObs(EditorConformance):
    spec = obs.SPEC
    config = obs.ObsConfig(amount=0.5)


class TestObsOfEachLayer(EditorConformance):
    spec = obs.SPEC
    config = obs.ObsConfig(amount=0.5, scope="layer")


class TestFinalize(EditorConformance):
    spec = finalize.SPEC
    config = finalize.FinalizeConfig()

    def model(self):
        model = super().model()
        weight = model.module[0].weight
        model.masks["0.weight"] = weight.detach() > 0
        weight.data.mul_(model.masks["0.weight"])
        return model


class TestChannels(EditorConformance):
    spec = channels.SPEC
    config = channels.ChannelsConfig(amount=0.5)


class TestChannelsByData(EditorConformance):
    spec = channels.SPEC
    config = channels.ChannelsConfig(amount=0.5, importance="wanda", scope="global")


class TestNeurons(EditorConformance):
    spec = neurons.SPEC
    config = neurons.NeuronsConfig(amount=0.5)
    input_shape = (6,)

    @staticmethod
    def module():
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class TestHeads(EditorConformance):
    spec = heads.SPEC
    config = heads.HeadsConfig(amount=0.5)
    input_shape = (5, 16)

    @staticmethod
    def module():
        return Attention()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = x + torch.relu(self.first(x))
        return self.third(x + self.second(x))


class TestBlocks(EditorConformance):
    spec = blocks.SPEC
    config = blocks.BlocksConfig(amount=0.5, importance="change")

    @staticmethod
    def module():
        return Residual()


def test_every_pass_of_the_plugin_is_tested_here():
    tested = {one.spec.name for one in EditorConformance.__subclasses__()}
    assert {spec.name for spec in demiglace_passes()} - tested == set()
