"""Layers that make up for the errors of those before them."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace.quantization import METHODS, RoundingMethod, round_weight
from demiglace_quantizers import _methods, _moments  # noqa: F401  # registers the methods


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_a_layer_makes_up_for_the_errors_of_those_before_it(method, bias, monkeypatch):
    torch.manual_seed(0)
    layers = (nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8, bias=bias))
    dense = nn.Sequential(*layers).eval()
    mixed = torch.randn(16, 64)
    known, unknown = (torch.randn(count, 16) @ mixed for count in (256, 1024))
    # By columns only: rows that make up for each other leave less to make up for.
    monkeypatch.setitem(METHODS, method, RoundingMethod(method, METHODS[method].round, inputs=True))
    options = {"bits": 2, "method": method, "damping": 0.01}
    errors = []
    for ridge in (_moments._RIDGE, 1e6):
        monkeypatch.setattr(_moments, "_RIDGE", ridge)
        module = copy.deepcopy(dense)
        recipe = {"pass": [{"use": "quantize.weight_only"} | options]}
        demiglace.run(recipe, model=module, data=[known], example_inputs=known[:2])
        errors.append(float((module(unknown) - dense(unknown)).detach().square().mean()))
    assert errors[0] < 0.9 * errors[1]


def test_a_layer_whose_inputs_are_the_originals_aims_at_its_own_weight():
    matrix, mean = _moments_of(torch.randn(100, 8) + 1)
    weight = torch.randn(4, 8)
    assert _moments.InputMoments(matrix, mean).making_up(weight, biased=True) is weight
    same = _moments.InputMoments(matrix, mean, matrix, mean)
    for biased in (True, False):
        torch.testing.assert_close(same.making_up(weight, biased=biased), weight)


def test_a_weight_stays_where_its_inputs_are_constant():
    rows = torch.ones(100, 8)
    matrix, mean = _moments_of(rows)
    moments = _moments.InputMoments(matrix, mean, 2 * matrix, 2 * mean)
    weight = torch.randn(4, 8)
    assert moments.making_up(weight, biased=True) is weight
    error = moments.mean_error(weight, weight)
    torch.testing.assert_close(error, weight.sum(1))


def _moments_of(rows):
    return (rows.T @ rows / len(rows))[None], rows.mean(0)[None]


class Text(nn.Module):
    """A table and a layer behind it."""

    def __init__(self, follows):
        super().__init__()
        self.words, self.out = nn.Embedding(20, 16), nn.Linear(16, 4)
        self.follows = follows

    def forward(self, ids):
        output = self.out(self.words(ids))
        return output if self.follows else output.detach()


@pytest.mark.parametrize("follows", [True, False])
def test_errors_of_a_table_are_made_up_for_only_if_it_was_rounded_blindly(follows, monkeypatch):
    seen = []

    def round_and_see(task):
        seen.append(task.weight)
        return round_weight(task.weight, task.scheme)

    monkeypatch.setitem(METHODS, "seeing", RoundingMethod("seeing", round_and_see, inputs=True))
    torch.manual_seed(0)
    module, ids = Text(follows).eval(), torch.randint(20, (64, 5))
    weight = module.out.weight.detach().clone()
    recipe = {"pass": [{"use": "quantize.weight_only", "bits": 2, "method": "seeing"}]}
    demiglace.run(recipe, model=module, data=[ids], example_inputs=ids[:2])
    assert torch.allclose(seen[-1], weight, atol=1e-5) is follows
