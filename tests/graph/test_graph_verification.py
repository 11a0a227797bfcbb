"""A wrong cut never passes, whatever it leaves the shapes as; and the model is put back."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from demiglace.errors import GraphError, VerificationError
from demiglace.graph import Cut, Example, Lower, ModelGraph, apply_verified, removal_edits
from demiglace.measure import macs_of


def convolutions() -> nn.Module:
    """Freshly made: norms are all ones, biases of the last layer zeros, and hide nothing."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 4),
    )  # fmt: skip
    nn.init.zeros_(net[4].weight)
    return net


def graph(net: nn.Module, *shape: int) -> ModelGraph:
    torch.manual_seed(0)
    return ModelGraph(net, Example((torch.randn(shape),)))


def halves(model: ModelGraph):
    return removal_edits(model, [(group, torch.arange(group.units // 2)) for group in model.groups])


@pytest.mark.parametrize(
    ("tensor", "dim"),
    [
        ("0.weight", 0),
        ("1.weight", 0),
        ("1.running_mean", 0),
        ("3.weight", 1),
        ("4.bias", 0),
        ("7.weight", 1),
    ],
)
def test_indices_of_one_tensor_out_of_line_are_found(tensor, dim):
    model = graph(convolutions(), 2, 3, 8, 8)
    before = copy.deepcopy(model.module.state_dict())
    size = model.module.get_submodule(tensor[0]).state_dict()[tensor[2:]].shape[dim]
    other = Cut(tensor, dim, tuple(range(size // 2)))
    wrong = [
        other if isinstance(one, Cut) and (one.tensor, one.dim) == (tensor, dim) else one
        for one in halves(model)
    ]
    with pytest.raises(VerificationError):
        apply_verified(model, wrong)
    after = model.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert isinstance(model.module, nn.Sequential)
    assert model.module[0].out_channels == 8
    assert model.edits == []


def test_a_tensor_left_out_is_found():
    model = graph(convolutions(), 2, 3, 8, 8)
    edits = [one for one in halves(model) if getattr(one, "tensor", "") != "1.running_var"]
    with pytest.raises(VerificationError):
        apply_verified(model, edits)


def test_norms_over_a_cut_axis_are_compared_by_their_wiring():
    model = graph(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), 4, 6)
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert verified.equality == "wiring"
    assert model.module[1].normalized_shape == (4,)


def test_a_wrong_index_under_a_norm_is_found():
    model = graph(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)), 4, 6)
    wrong = [
        Cut("1.weight", 0, (0, 1, 2, 3)) if getattr(one, "tensor", "") == "1.weight" else one
        for one in halves(model)
    ]
    with pytest.raises(VerificationError):
        apply_verified(model, wrong)


def test_a_zero_example_hides_nothing():
    model = ModelGraph(convolutions(), Example((torch.zeros(1, 3, 8, 8),)))
    wrong = [
        Cut("3.weight", 1, (0, 1, 2, 3)) if getattr(one, "dim", 0) == 1 and one.tensor == "3.weight" else one
        for one in halves(model)
    ]
    with pytest.raises(VerificationError):
        apply_verified(model, wrong)


def test_weights_that_are_not_finite_are_refused():
    model = graph(convolutions(), 2, 3, 8, 8)
    edits = halves(model)
    model.module[3].weight.data[5, 6] = float("nan")
    with pytest.raises(VerificationError, match="not finite"):
        apply_verified(model, edits)


class Fixed(nn.Module):
    """Its code knows the number of channels: only the graph can follow a cut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Conv1d(6, 4, 1)
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x, scale=None):
        y = self.norm(self.b(self.drop(self.a(x)).view(-1, 6, 2)))
        return {"y": y, "scaled": (y * scale, y)} if scale is not None else {"y": y}


def test_code_that_knows_its_sizes_becomes_a_graph_that_trains():
    torch.manual_seed(0)
    model = ModelGraph(Fixed(), Example((torch.randn(3, 5),), {"scale": torch.tensor(2.0)}))
    transaction, verified = apply_verified(model, halves(model))
    transaction.commit()
    assert verified is not None
    assert verified.form == "graph"
    assert "channels" in verified.reason
    assert Lower() in model.edits
    out = model.module.train()(torch.randn(7, 5), scale=torch.tensor(2.0))
    assert out["y"].shape == (7, 4, 2)
    out["scaled"][0].sum().backward()
    assert model.module.get_parameter("a.weight").grad.shape == (6, 5)


def test_a_graph_can_be_cut_again():
    torch.manual_seed(0)
    model = ModelGraph(Fixed(), Example((torch.randn(3, 5),)))
    for left in (3, 2):
        transaction, verified = apply_verified(
            model,
            removal_edits(model, [(model.groups[0], torch.tensor([1]) if left < 3 else torch.arange(3))]),
        )
        transaction.commit()
        assert verified is not None
        assert verified.error <= verified.tolerance
        assert model.module.get_parameter("b.weight").shape[1] == left


def test_a_rolled_back_graph_is_the_module_again():
    torch.manual_seed(0)
    model = ModelGraph(Fixed(), Example((torch.randn(3, 5),)))
    before = model.module
    transaction, _ = apply_verified(model, halves(model))
    transaction.rollback()
    assert model.module is before
    assert before.a.weight.shape == (12, 5)
    assert [group.units for group in model.groups] == [6]


def test_removing_all_of_a_group_is_refused():
    model = graph(convolutions(), 2, 3, 8, 8)
    with pytest.raises(GraphError, match="leave nothing"):
        removal_edits(model, [(model.groups[0], torch.arange(8))])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 8)

    def forward(self, x):
        y = self.a(x)
        if y.sum() > 0:
            return y
        return -y


class Cropping(nn.Module):
    def forward(self, x):
        return x[: int(x.abs().sum().item()) + 1]


def test_a_model_whose_sizes_follow_from_values_says_where_and_torch_prints_no_graph(capfd):
    with pytest.raises(GraphError, match=r"Cropping cannot be traced at .*verification.py:\d+ \(return x"):
        _ = graph(Cropping(), 2, 5).groups
    assert "forward(self" not in "".join(capfd.readouterr())


class Talking(nn.Module):
    def forward(self, x):
        sys.stderr.write("a word")
        return x + 1


def test_what_a_forward_writes_while_it_is_traced_is_shown(capfd):
    _ = graph(Talking(), 2, 5).exported
    assert "a word" in capfd.readouterr().err


def test_a_model_that_cannot_be_traced_says_where():
    with pytest.raises(GraphError, match=r"Branching cannot be traced at .*verification.py:\d+ \(if y"):
        _ = graph(Branching(), 2, 5).groups


def test_an_example_that_does_not_fit_is_a_clear_error():
    with pytest.raises(GraphError, match="cannot be traced"):
        _ = graph(nn.Linear(5, 8), 2, 7).groups


def test_no_example_is_a_clear_error():
    with pytest.raises(GraphError, match="example input"):
        _ = ModelGraph(nn.Linear(5, 8)).groups


def test_half_precision_is_verified_and_keeps_its_dtype():
    model = ModelGraph(convolutions().bfloat16(), Example((torch.randn(2, 3, 8, 8).bfloat16(),)))
    transaction, verified = apply_verified(model, halves(model))
    transaction.commit()
    assert verified is not None
    assert model.module[0].weight.dtype == torch.bfloat16


class Constant(nn.Module):
    """Holds a constant of single precision that is no buffer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)
        self.scale = torch.full((5, 5), 0.5)

    def forward(self, x):
        return self.b(self.a(x @ self.scale).relu())


def test_a_module_with_constants_of_its_own_is_verified_in_single_precision():
    model = graph(Constant(), 2, 5)
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert verified.dtype == "float32"


def test_the_trace_is_dropped_by_an_edit():
    model = graph(convolutions(), 2, 3, 8, 8)
    first = model.traced
    assert model.traced is first
    transaction, _ = apply_verified(model, halves(model))
    assert [group.units for group in model.groups] == [4, 4]
    transaction.rollback()
    assert [group.units for group in model.groups] == [8, 8]


class Faint(nn.Module):
    """Attention over positions that look alike, because what comes before shrinks what varies.

    Its code keeps the number of heads: with half of the heads gone, it makes two of the one that is left.
    """

    def __init__(self):
        super().__init__()
        self.heads = 2
        self.first, self.second = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 8, 1)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, 4)
        for layer in (self.first, self.second):
            layer.weight.data.mul_(0.05)

    def forward(self, x):
        tokens = self.second(self.first(x).sigmoid()).sigmoid().transpose(1, 2)
        q, k, v = (
            one(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (self.q, self.k, self.v)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(2)
        return self.out(mixed).mean(1)


def test_a_wrong_number_of_heads_is_found_where_attention_hardly_matters():
    torch.manual_seed(0)
    model = ModelGraph(Faint(), Example((torch.randn(2, 3, 16),)))
    [heads] = [group for group in model.groups if group.heads]
    found = copy.deepcopy(model.module)
    inputs = torch.randn(3, 3, 16)
    before = found(inputs).detach()
    found.heads = 1
    # On its own weights the wrong number hardly shows.
    assert float((found(inputs).detach() - before).abs().max()) < 1e-6
    cuts = [edit for edit in removal_edits(model, [(heads, torch.tensor([0]))]) if isinstance(edit, Cut)]
    transaction, verified = apply_verified(model, cuts)
    transaction.commit()
    assert verified is not None
    assert verified.form == "graph"
    assert "differs" in verified.reason
    # And the difference was as plain as any: not one near the tolerance.
    share = float(verified.reason.split(" by ")[1].split()[0])
    assert share > 1e-3


class Twofold(nn.Module):
    """Holds one layer under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.again = nn.Sequential(self.shared)

    def forward(self, x):
        return self.last(self.again(self.shared(self.first(x)).relu()))


def test_a_layer_under_two_names_keeps_its_own_parameter():
    model = graph(Twofold(), 2, 5)
    weight = model.module.shared.weight
    apply_verified(model, halves(model))[0].commit()
    macs_of(model.module, model.example)
    assert model.module.shared.weight is weight
    assert weight.dtype == torch.float32


class Ahead(nn.Module):
    """Reads a layer's weight before that layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.last.weight.square().sum()
        return self.last(self.second(self.between(self.first(x).relu())).relu()) * size

    def between(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class AheadFixed(Ahead):
    """Its code knows the number of channels."""

    def between(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.view(-1, 8)


class AheadTyped(AheadFixed):
    """It names a dtype, too."""

    def between(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().between(hidden) + torch.ones((), dtype=torch.float32)


@pytest.mark.parametrize(("kind", "form"), [(Ahead, "module"), (AheadFixed, "graph"), (AheadTyped, "graph")])
def test_a_weight_that_is_read_before_its_layer_runs_refuses_no_right_cut(kind, form):
    model = graph(kind(), 2, 6)
    group = next(one for one in model.groups if "first.weight" in str(one))
    transaction, verification = apply_verified(model, removal_edits(model, [(group, torch.arange(4))]))
    transaction.commit()
    assert model.module.get_parameter("first.weight").shape == (4, 6)
    assert verification.form == form


class Averaged(nn.Module):
    """Gives the average of each four channels of a layer."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, 20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(nn.functional.pixel_shuffle(self.layer(x), 2), 2)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_channels_of_one_input_do_not_cancel_out(seed):
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
    net = nn.Sequential(first, Averaged(8), Averaged(5), nn.Flatten(), nn.Linear(80, 3))
    model = graph(net, 2, 3, 4, 4)
    edits = removal_edits(model, [(group, torch.arange(1, group.units)) for group in model.groups])
    _, verification = apply_verified(model, edits)
    assert verification is not None
