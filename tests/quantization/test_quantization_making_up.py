"""Layers that make up for the errors of those before them."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace_quantizers import _moments


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_a_layer_makes_up_for_the_errors_of_those_before_it(method, bias, monkeypatch):
    torch.manual_seed(0)
    layers = (nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8, bias=bias))
    dense = nn.Sequential(*layers).eval()
    mixed = torch.randn(16, 64)
    known, unknown = (torch.randn(count, 16) @ mixed for count in (256, 1024))
    errors = []
    for ridge in (_moments._RIDGE, 1e6):
        monkeypatch.setattr(_moments, "_RIDGE", ridge)
        module = copy.deepcopy(dense)
        recipe = {"pass": [{"use": "quantize.weight_only", "bits": 2, "method": method}]}
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
