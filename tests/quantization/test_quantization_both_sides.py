"""Errors of one output made up for by others, as the model's outputs see them."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace.quantization import METHODS, Rounding, RoundingMethod, Scheme, round_weight, rounding_method
from demiglace_quantizers import _methods, _output_moments  # noqa: F401  # registers the methods
from demiglace_quantizers._both_sides import compensated_rows


def _second_moments(size, rank):
    rows = torch.randn(256, rank) @ torch.randn(rank, size)
    return rows.T @ rows / 256


def _seen(error, inputs, outputs):
    """What is seen of an error of a weight: trace(G E M E^T)."""
    return float(((outputs @ error) * (error @ inputs)).sum())


@pytest.mark.parametrize("rows", [1, 16, 40, 500])
def test_rows_that_lose_nothing_stay_as_they_are(rows):
    torch.manual_seed(0)
    matrix = torch.randint(-8, 8, (rows, 5)).float()
    found = compensated_rows(matrix, _second_moments(rows, 3), lambda left, places: (left.round(), left))
    assert torch.equal(found, matrix.to(torch.int8))


def test_rows_behind_a_block_take_the_place_that_is_best_for_its_errors():
    torch.manual_seed(0)
    matrix, outputs = torch.randn(48, 6), _second_moments(48, 8)
    damped = outputs + outputs.diagonal().mean() * torch.eye(48)
    asked, errors, order = [], [], []

    def solve(left, places):
        asked.append(left.clone())
        order.append(places)
        real = left.round()
        errors.append(matrix[places] - real)
        return real, real

    compensated_rows(matrix, outputs, solve)
    assert sorted(torch.cat(order).tolist()) == list(range(48))
    for block in (1, 2):
        before, now = torch.cat(order[:block]), torch.cat(order[block:])
        # The errors of all that is left which cost least beside those made: the minimum of the quadratic.
        best = -torch.linalg.solve(damped[now][:, now], damped[now][:, before] @ torch.cat(errors[:block]))
        wanted = matrix[order[block]] - best[: len(order[block])]
        torch.testing.assert_close(asked[block], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", [Scheme(3), Scheme(4, symmetric=False, group=8), Scheme(2)])
@pytest.mark.parametrize("clip", [False, True])
def test_gptq_errs_less_on_what_is_seen_of_the_outputs(scheme, clip):
    torch.manual_seed(0)
    weight, inputs, outputs = torch.randn(80, 32), _second_moments(32, 32), _second_moments(80, 6)
    weight[7] = 0
    seen = {}
    for known in (None, outputs):
        rounded = METHODS["gptq"].round(Rounding(weight, scheme, inputs[None], known, clip))
        assert int(rounded.integers.min()) >= scheme.low
        assert int(rounded.integers.max()) <= scheme.high
        seen[known is None] = _seen(weight - rounded.dequantize(), inputs, outputs)
    assert seen[False] < 0.6 * seen[True]


@pytest.mark.parametrize("outputs", [torch.zeros(40, 40), torch.eye(40), torch.ones(40, 40)])
def test_outputs_that_nobody_sees_or_that_are_seen_alike_are_rounded(outputs):
    torch.manual_seed(0)
    weight, inputs = torch.randn(40, 16), _second_moments(16, 16)
    plain = METHODS["gptq"].round(Rounding(weight, Scheme(4), inputs[None]))
    rounded = METHODS["gptq"].round(Rounding(weight, Scheme(4), inputs[None], outputs))
    if not outputs.triu(1).any():
        assert torch.equal(rounded.codes, plain.codes)
    assert rounded.dequantize().isfinite().all()


def test_a_row_of_zeros_stays_one():
    torch.manual_seed(0)
    weight, inputs, outputs = torch.randn(40, 16), _second_moments(16, 16), _second_moments(40, 3)
    weight[::7] = 0
    for scheme in (Scheme(4), Scheme(2, symmetric=False, group=4)):
        rounded = METHODS["gptq"].round(Rounding(weight, scheme, inputs[None], outputs))
        assert (rounded.dequantize()[::7] == 0).all()


def _narrow(kind):
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Sequential(nn.Linear(24, 96), nn.Linear(96, 4)), torch.randn(600, 24)
    first, second = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 4, 1)
    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(2)), torch.randn(300, 3, 8, 8)


def _distance(module, data, *, outputs, monkeypatch):
    method = METHODS["gptq"]
    monkeypatch.setitem(METHODS, "gptq", RoundingMethod("gptq", method.round, inputs=True, outputs=outputs))
    rounded, (known, unknown) = copy.deepcopy(module), data.split(len(data) // 2)
    recipe = {"pass": [{"use": "quantize.weight_only", "bits": 3, "method": "gptq", "targets": ["0"]}]}
    result = demiglace.run(recipe, model=rounded, data=[known], example_inputs=known[:2])
    monkeypatch.setitem(METHODS, "gptq", method)
    with torch.no_grad():
        return float((rounded(unknown) - module(unknown)).square().mean()), result


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_model_that_sees_little_of_a_layer_loses_little(kind, monkeypatch):
    module, data = _narrow(kind)
    rows, _ = _distance(module.eval(), data, outputs=False, monkeypatch=monkeypatch)
    both, _ = _distance(module, data, outputs=True, monkeypatch=monkeypatch)
    assert both < 0.6 * rows


def test_moments_are_gathered_for_as_many_layers_as_fit_and_none_that_is_too_wide(monkeypatch):
    seen, gathered = {}, []

    def round_and_see(task):
        seen[len(task.weight)] = task.outputs
        return round_weight(task.weight, task.scheme)

    def gather(model, layers, *rest):
        gathered.append([layer.name for layer in layers])
        return output_moments(model, layers, *rest)

    output_moments = _output_moments.output_moments
    monkeypatch.setattr(_output_moments, "output_moments", gather)
    monkeypatch.setattr(_output_moments, "_ELEMENTS", 5 * 5 + 6 * 6)
    monkeypatch.setattr(_output_moments, "_SHARE", 0)
    method = RoundingMethod("seeing", round_and_see, inputs=True, outputs=True)
    monkeypatch.setitem(METHODS, "seeing", method)
    layers = [nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 40), nn.Linear(40, 7), nn.Linear(7, 3)]
    data = torch.randn(32, 4)
    recipe = {"pass": [{"use": "quantize.weight_only", "method": "seeing"}]}
    demiglace.run(recipe, model=nn.Sequential(*layers), data=[data], example_inputs=data[:2])
    assert [one for one in gathered if one] == [["0", "1"], ["3", "4"]]
    assert seen.pop(40) is None
    assert {size: tuple(one.shape) for size, one in seen.items()} == {n: (n, n) for n in (5, 6, 7, 3)}
    # The last layer's outputs are the model's: the gradients are random signs.
    assert (seen[3].diagonal() == 1).all()
    assert (seen[3] - torch.eye(3)).abs().max() < 0.7


class Undifferentiable(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.second(self.first(x).relu()).argmax(1)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.second(self.first(x)).mean((2, 3))


def test_a_model_that_cannot_be_differentiated_is_rounded_row_by_row_and_says_so():
    data = torch.randn(32, 8)
    recipe = {"pass": [{"use": "quantize.weight_only", "bits": 4, "method": "gptq"}]}
    result = demiglace.run(recipe, model=Undifferentiable(), data=[data], example_inputs=data[:2])
    said = [one for one in result.steps[0].warnings if "made up for by others" in one]
    assert len(said) == 1
    assert "no gradient reaches" in said[0]


class Rooted(nn.Module):
    """The root's gradient at 0 is infinite."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.second((self.first(x) * 0).sqrt())


@pytest.fixture
def seen(monkeypatch):
    """The outputs' moments by the weight's shape, as a method named `seeing` gets them."""
    seen = {}

    def round_and_see(task):
        seen[tuple(task.weight.shape)] = task.outputs
        return round_weight(task.weight, task.scheme)

    method = RoundingMethod("seeing", round_and_see, inputs=True, outputs=True)
    monkeypatch.setitem(METHODS, "seeing", method)
    return seen


def test_a_layer_whose_gradients_are_not_finite_is_told_and_costs_others_nothing(seen, monkeypatch):
    monkeypatch.setattr(_output_moments, "_ELEMENTS", 16 * 16)  # one layer at a time
    data = torch.randn(16, 8)
    recipe = {"pass": [{"use": "quantize.weight_only", "method": "seeing"}]}
    result = demiglace.run(recipe, model=Rooted(), data=[data], example_inputs=data[:2])
    assert seen[16, 8] is None
    assert seen[4, 16] is not None
    assert [one for one in result.steps[0].warnings if "'first' are not finite" in one]


def test_layers_with_groups_of_inputs_are_not_asked_about(seen):
    data = torch.randn(16, 8, 6, 6)
    recipe = {"pass": [{"use": "quantize.weight_only", "method": "seeing"}]}
    demiglace.run(recipe, model=Grouped(), data=[data], example_inputs=data[:2])
    assert seen[8, 4, 3, 3] is None
    assert seen[4, 8, 1, 1].shape == (4, 4)


def test_a_method_that_looks_at_outputs_looks_at_inputs_too():
    with pytest.raises(ValueError, match="register it with inputs=True"):
        rounding_method("careless", outputs=True)
