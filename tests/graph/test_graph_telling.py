"""What a comparison of outputs can tell: a cut that it could not judge is refused, a faint fault is seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from demiglace.errors import VerificationError
from demiglace.graph import Cut, Example, ModelGraph, apply_verified, removal_edits


class Ending(nn.Module):
    """Two layers, and a function that makes of them what the model returns."""

    def __init__(self, end):
        super().__init__()
        self.first, self.second, self.end = nn.Linear(5, 8), nn.Linear(8, 4), end

    def forward(self, x):
        return self.end(self.second(self.first(x).relu()))


def model_of(net: nn.Module, *example: torch.Tensor) -> ModelGraph:
    return ModelGraph(net, Example(example or (torch.rand(3, 5),)))


def first_half(model: ModelGraph) -> list:
    return removal_edits(model, [(group, torch.arange(group.units // 2)) for group in model.groups])


def shifted(edits: list, tensor: str, dim: int) -> list:
    """The edits with one index of one cut out of line: the one before the first in place of the first."""
    return [
        Cut(tensor, dim, (one.kept[0] - 1, *one.kept[1:]))
        if (getattr(one, "tensor", ""), getattr(one, "dim", 0)) == (tensor, dim)
        else one
        for one in edits
    ]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda y: y.argmax(-1), "no tensor of real or complex numbers"),
        (lambda y: y.shape[-1], "no tensor of real or complex numbers"),
        (lambda y: y * 0, "all zero"),
        (lambda y: y / 0, "not finite"),
        (lambda y: (y.abs() * 1e9).sigmoid(), "hardly depend on what is cut"),
        (lambda y: y.detach() * 0 + 1, "hardly depend on what is cut"),
    ],
)
def test_outputs_that_tell_nothing_are_refused(end, reason):
    torch.manual_seed(0)
    model = model_of(Ending(end))
    edits = [Cut("first.weight", 0, (0, 1, 2, 3)), Cut("first.bias", 0, (0, 1, 2, 3))]
    edits.append(Cut("second.weight", 1, (0, 1, 2, 3)))
    with pytest.raises(VerificationError, match=reason):
        apply_verified(model, edits)
    assert model.module.first.out_features == 8
    assert model.module.first.weight.shape == (8, 5)


@pytest.mark.parametrize("end", [lambda y: {"a": (y, [y * 2])}, lambda y: (y.argmax(-1), y), torch.complex64])
def test_numbers_anywhere_in_the_outputs_are_enough(end):
    model = model_of(
        Ending((lambda y: torch.view_as_complex(y.view(-1, 2, 2))) if end is torch.complex64 else end)
    )
    _, verified = apply_verified(model, first_half(model))
    assert verified is not None
    assert verified.error < 1e-14


def test_complex_outputs_are_compared_in_both_parts():
    torch.manual_seed(0)

    def imaginary(y):
        return torch.complex(torch.zeros_like(y), y)

    model = model_of(Ending(imaginary))
    wrong = shifted(first_half(model), "second.weight", 1)
    with pytest.raises(VerificationError, match="differs"):
        apply_verified(model, wrong)


class Auxiliary(nn.Module):
    """A head that only training runs."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.drop = nn.Linear(5, 8), nn.Linear(8, 4), nn.Dropout(0.5)
        self.hidden, self.extra = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        y = self.body(x).relu()
        if self.training:
            return self.head(y), self.extra(self.drop(self.hidden(y).relu()))
        return self.head(y)


@pytest.mark.parametrize(("tensor", "dim"), [("hidden.weight", 1), ("hidden.bias", 0), ("extra.weight", 1)])
def test_a_wrong_index_that_only_training_reads_is_found(tensor, dim):
    torch.manual_seed(0)
    model = model_of(Auxiliary().eval())
    edits = first_half(model)
    with pytest.raises(VerificationError, match="in training"):
        apply_verified(model, shifted(edits, tensor, dim))
    transaction, _ = apply_verified(model, edits)
    transaction.commit()
    assert [one.shape for one in model.module.train()(torch.rand(3, 5))] == [(3, 4), (3, 4)]


class Widths(Auxiliary):
    """Its code knows a width, so that only the graph of inference, without the other head, can follow."""

    def forward(self, x):
        return super().forward(x) if self.training else self.head(self.body(x).relu().view(-1, 8))


def test_a_graph_takes_no_cut_of_what_only_training_reads():
    model = model_of(Widths().eval())
    transaction, verified = apply_verified(model, first_half(model))
    transaction.commit()
    assert verified is not None
    assert verified.form == "graph"
    assert {name for name, _ in model.module.named_children()} == {"body", "head"}
    assert model.module.get_parameter("body.weight").shape == (4, 5)


def test_cuts_that_are_no_whole_units_fit_no_graph():
    """Together they may leave a recurrent layer no unit, at which a kernel of torch ends the process."""

    class Scan(nn.Module):
        def __init__(self):
            super().__init__()
            self.scan, self.out = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.scan(x)[0])

    model = model_of(Scan(), torch.rand(2, 4, 5))
    edits = removal_edits(model, [(model.groups[-1], torch.tensor([0, 1]))])
    with pytest.raises(VerificationError, match="goes together"):
        apply_verified(model, shifted(edits, "out.weight", 1))
    assert model.module.scan.hidden_size == 4


def test_one_item_hides_nothing_behind_a_relu():
    """Few values of a channel may all be negative: the comparison takes more items than the example has."""
    for seed in range(20):
        torch.manual_seed(seed)
        model = model_of(Ending(lambda y: y), torch.randn(1, 5))
        wrong = shifted(first_half(model), "first.bias", 0)
        with pytest.raises(VerificationError):
            apply_verified(model, wrong)


class Mask(nn.Module):
    """Multiplies by a constant of half precision that is no buffer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)
        self.mixing = torch.rand(5, 5).half()

    def forward(self, x):
        return self.b(self.a(F.linear(x, self.mixing)).relu())


def test_a_model_that_runs_in_its_own_precision_alone_is_refused_with_a_reason():
    model = model_of(Mask().half(), torch.rand(3, 5).half())
    with pytest.raises(VerificationError, match="does not run in float32"):
        apply_verified(model, first_half(model))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_precision_is_cut_and_kept(dtype):
    model = model_of(Ending(lambda y: y).to(dtype), torch.rand(3, 5, dtype=dtype))
    transaction, verified = apply_verified(model, first_half(model))
    transaction.commit()
    assert verified is not None
    assert (verified.dtype, model.module.first.weight.dtype) == ("float64", dtype)
    assert model.module(torch.rand(2, 5, dtype=dtype)).shape == (2, 4)
