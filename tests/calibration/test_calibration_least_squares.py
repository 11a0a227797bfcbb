"""Normal equations and least squares against what is worked out by brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from demiglace.calibration import LeastSquares, NormalEquations, normal_equations, solvable_stages
from demiglace.data import Batch
from demiglace.graph import ModelGraph
from demiglace.passes import Context

DAMPING = 0.05


def context():
    return Context(0, torch.device("cpu"))


def problem(layer, inputs, wanted, damping=DAMPING):
    equations = NormalEquations()
    for x, y in zip(inputs.split(5), wanted.split(5), strict=True):
        equations.want(y)
        equations.see(layer, (x,), layer(x))
    return LeastSquares(layer, equations, damping)


def linear_problem(rows=40, inputs=6, outputs=3, bias=True, damping=DAMPING):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias).double()
    x = torch.randn(rows, inputs).double() @ torch.randn(inputs, inputs).double()
    y = torch.randn(rows, outputs).double()
    return layer, x, y, problem(layer, x, y, damping)


def damped_rows(layer, x, y, damping):
    """The damped problem as ordinary least squares: further rows hold weights where they are."""
    n, k = x.shape
    strength = (damping * x.square().sum(0).sum() / n / (x != 0).any(0).sum() * n).sqrt()
    ones = torch.ones(n, 1).double() if layer.bias is not None else x[:, :0]
    hold = torch.cat([torch.eye(k).double() * strength, torch.zeros(k, ones.shape[1]).double()], 1)
    return torch.cat([torch.cat([x, ones], 1), hold]), torch.cat([y, layer.weight.detach().T * strength])


def brute_force(layer, x, y, damping, keep):
    """The best weights `[outputs, columns]` of each output and their squared error, one `lstsq` each."""
    left, right = damped_rows(layer, x, y, damping)
    weights = torch.zeros(keep.shape[0], left.shape[1]).double()
    errors = torch.zeros(keep.shape[0]).double()
    for row, mask in enumerate(keep):
        columns = torch.cat([mask, torch.ones(left.shape[1] - len(mask), dtype=torch.bool)])
        found = torch.linalg.lstsq(left[:, columns], right[:, row : row + 1]).solution[:, 0]
        weights[row, columns] = found
        errors[row] = (left[:, columns] @ found - right[:, row]).square().sum() / len(x)
    return weights, errors


@pytest.mark.parametrize("bias", [True, False])
def test_the_solution_is_that_of_ordinary_least_squares(bias):
    layer, x, y, squares = linear_problem(bias=bias)
    keep = torch.rand(3, 6, generator=torch.Generator().manual_seed(3)) > 0.4
    solution = squares.solution(keep)
    expected, _ = brute_force(layer, x, y, DAMPING, keep)
    torch.testing.assert_close(solution.weight, expected[:, :6])
    assert (solution.weight[~keep] == 0).all()
    if bias:
        torch.testing.assert_close(solution.bias, expected[:, 6])


def test_a_score_is_what_removing_that_one_weight_and_solving_again_adds_to_the_error():
    layer, x, y, squares = linear_problem()
    keep = torch.ones(3, 6, dtype=torch.bool)
    keep[1, 2] = keep[2, 0] = False
    scores = squares.scores(keep, solved=True) * squares.equations.variance
    _, before = brute_force(layer, x, y, DAMPING, keep)
    for row, column in keep.nonzero().tolist():
        without = keep.clone()
        without[row, column] = False
        _, after = brute_force(layer, x, y, DAMPING, without)
        torch.testing.assert_close(scores[row, column], (after - before)[row])
    assert (scores[~keep] == 0).all()


def test_the_error_is_the_share_of_the_variance_that_is_missed():
    layer, x, y, squares = linear_problem()
    keep = torch.ones(3, 6, dtype=torch.bool)
    keep[:, 3] = False
    solution = squares.solution(keep)
    missed = (F.linear(x, solution.weight, solution.bias) - y).square().mean(0).sum()
    assert solution.error == pytest.approx(float(missed / y.var(0, correction=0).sum()))
    present = (layer(x).detach() - y).square().mean(0).sum() / y.var(0, correction=0).sum()
    assert squares.present_error == pytest.approx(float(present))


def test_a_masked_bias_stays_zero_and_the_weights_do_without_it():
    _, x, y, squares = linear_problem(damping=1e-8)
    solution = squares.solution(keep_bias=torch.zeros(3, dtype=torch.bool))
    assert (solution.bias == 0).all()
    torch.testing.assert_close(solution.weight, torch.linalg.lstsq(x, y).solution.T, rtol=1e-5, atol=1e-6)


convolutions = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 2, 4]),
        "stride": st.integers(1, 2),
        "padding": st.integers(0, 2),
        "dilation": st.integers(1, 2),
        "bias": st.booleans(),
        "padding_mode": st.sampled_from(["zeros", "reflect"]),
    }
)


@settings(max_examples=30, deadline=None)
@given(convolutions)
def test_convolutions_are_the_linear_layers_of_their_unfolded_inputs(options):
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 8, 3, **options).double()
    x = torch.randn(10, 4, 9, 8).double()
    y = torch.randn_like(layer(x))
    solution = problem(layer, x, y).solution()
    p, groups = options["padding"], options["groups"]
    padded = F.pad(x, (p,) * 4, mode="constant" if options["padding_mode"] == "zeros" else "reflect")
    unfolded = F.unfold(padded, 3, dilation=options["dilation"], stride=options["stride"])
    each = unfolded.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    wanted = y.flatten(2).unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    for group in range(groups):
        part = nn.Linear(each.shape[2], 8 // groups, bias=options["bias"]).double()
        rows = slice(group * 8 // groups, (group + 1) * 8 // groups)
        part.weight.data = layer.weight.data[rows].flatten(1)
        expected, _ = brute_force(
            part, each[group], wanted[group], DAMPING, torch.ones_like(part.weight, dtype=torch.bool)
        )
        torch.testing.assert_close(solution.weight[rows].flatten(1), expected[:, : each.shape[2]])
        if options["bias"]:
            torch.testing.assert_close(solution.bias[rows], expected[:, -1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.sets(st.integers(0, 7)), st.integers(0, 2**30))
def test_singular_statistics_give_finite_weights_that_lose_nothing(rows, inputs, dead, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, 2)
    x = torch.randn(rows, inputs)
    x[:, [column for column in dead if column < inputs]] = 0
    squares = problem(layer, x, layer(x).detach())
    solution = squares.solution()
    torch.testing.assert_close(solution.weight, layer.weight.detach(), rtol=1e-3, atol=1e-4)
    assert squares.dead_inputs == int((x == 0).all(0).sum())
    scores = squares.scores(torch.ones_like(layer.weight, dtype=torch.bool), solved=True)
    assert scores.isfinite().all()
    assert (scores[:, (x == 0).all(0)] == 0).all()


def test_what_the_data_leaves_open_stays_where_it_was():
    layer = nn.Linear(4, 2)
    x = torch.randn(50, 4)
    x[:, 1] = 0
    solution = problem(layer, x, torch.randn(50, 2)).solution()
    torch.testing.assert_close(solution.weight[:, 1], layer.weight.detach()[:, 1])


@pytest.mark.parametrize("kept", [torch.tensor([3, 1]), None], ids=["some", "all"])
def test_pairs_are_matched_call_by_call_and_kept_channels_are_compared(kept):
    """What follows the layer works in place on its output, which must not reach what was wanted."""

    class Twice(nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.fc = nn.Linear(3, outputs)

        def forward(self, x):
            return F.relu_(self.fc(x)).sum() + F.relu_(self.fc(x * 2)).sum()

    original, model = Twice(4), Twice(4 if kept is None else 2)
    batches = [Batch((torch.randn(6, 3),)) for _ in range(3)]
    [equations] = normal_equations(original, ModelGraph(model), batches, {"fc": kept}, context()).values()
    x = torch.cat([part for batch in batches for part in (batch.args[0], 2 * batch.args[0])])
    y = original.fc(x).detach()
    y = y if kept is None else y[:, kept]
    assert equations.rows == 36
    torch.testing.assert_close(equations.moment[0, :, :3].float(), y.T @ x / 36)
    assert equations.power == pytest.approx(float(y.square().sum() / 36), rel=1e-5)


def test_gathering_leaves_both_models_as_they_were():
    models = [
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)) for _ in range(2)
    ]
    for one in models:
        one.train()
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in models]
    state = torch.get_rng_state()
    normal_equations(models[0], ModelGraph(models[1]), [Batch((torch.ones(4, 3),))], {"3": None}, context())
    assert torch.equal(state, torch.get_rng_state())
    for one, values in zip(models, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in one.state_dict().items())
        assert one.training
        assert not any(each._forward_hooks for each in one.modules())


def test_stages_follow_the_calls_and_say_what_cannot_be_solved():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.unused = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(4, 4)
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
            self.up = nn.ConvTranspose1d(1, 1, 1)
            self.tied = nn.Linear(4, 4)
            self.tied.weight = self.left.weight
            self.wide = nn.Linear(1 << 15, 1)

        def forward(self, x):
            x = self.tied(self.left(self.first(x)))
            return self.last(self.right(self.up(x[:, None])[:, 0]))

    model, told = ModelGraph(Net()), context()
    stages = solvable_stages(model, model.weights(), Batch((torch.ones(2, 4),)), told)
    assert [[one.name for one in stage] for stage in stages] == [
        ["first.weight"],
        ["right.weight"],
        ["last.weight"],
    ]
    reasons = told.left_alone
    assert "never calls" in reasons["unused.weight"]
    assert "ConvTranspose1d" in reasons["up.weight"]
    assert "share" in reasons["left.weight"]
    assert "32768" in reasons["wide.weight"]


class Standardized(nn.Conv2d):
    """A convolution by its weight less its mean."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Named(nn.Conv2d):
    """A convolution that computes as its base does."""


def test_layers_that_do_something_to_their_weight_are_not_solved_for():
    module = nn.Sequential(Standardized(3, 4, 3), Named(4, 4, 1), nn.Flatten(), nn.Linear(64, 2))
    model, told = ModelGraph(module), context()
    stages = solvable_stages(model, model.weights(), Batch((torch.ones(2, 3, 6, 6),)), told)
    assert [[one.name for one in stage] for stage in stages] == [["1.weight"], ["3.weight"]]
    assert "computes in its own way" in told.left_alone["0.weight"]
