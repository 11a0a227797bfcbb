"""Every repair is an editor as third parties' must be, and every one is tested here."""

from dataclasses import replace

import torch

from demiglace.graph import Mask, apply
from demiglace.testing import EditorConformance
from demiglace_repairs import batchnorm, bias, demiglace_passes, least_squares


class Masked:
    """A repair's model has lost weights to masks, and its original has them."""

    def model(self):
        model = super().model()
        draw = torch.Generator().manual_seed(2)
        keep = torch.rand(model.module[3].weight.shape, generator=draw) > 0.5
        apply(model, [Mask("3.weight", keep)]).commit()
        return model

    def context(self):
        return replace(super().context(), original=super().model())


class TestLeastSquares(Masked, EditorConformance):
    spec = least_squares.SPEC
    config = least_squares.LeastSquaresConfig()


class TestBias(Masked, EditorConformance):
    spec = bias.SPEC
    config = bias.BiasConfig()


class TestBatchnorm(EditorConformance):
    spec = batchnorm.SPEC
    config = batchnorm.BatchnormConfig()


def test_every_pass_of_the_plugin_is_tested_here():
    assert {spec.name for spec in demiglace_passes()} == {
        one.spec.name for one in (TestLeastSquares, TestBias, TestBatchnorm)
    }
