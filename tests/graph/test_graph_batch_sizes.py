"""What is verified of other batch sizes than the example's, and when they are left free."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from demiglace.errors import VerificationError
from demiglace.graph import Example, ModelGraph, apply_verified, removal_edits
from demiglace.graph.export import export
from demiglace.graph.verify import Reference


def graph(net: nn.Module, *shape: int) -> ModelGraph:
    torch.manual_seed(0)
    return ModelGraph(net, Example((torch.randn(shape),)))


def halves(model: ModelGraph):
    return removal_edits(model, [(group, torch.arange(group.units // 2)) for group in model.groups])


class Fixed(nn.Module):
    """Its code knows the number of channels: only the graph can follow a cut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Conv1d(6, 4, 1)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 6, 2))


class ByBatch(nn.Module):
    """Works at one batch size only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(self.a(x).view(3, 8).relu())


def test_a_batch_size_that_is_fixed_is_verified_alone():
    torch.manual_seed(0)
    model = ModelGraph(ByBatch(), Example((torch.randn(3, 5),)))
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert verified.batch_sizes == (3,)


class Alone(nn.Module):
    """Treats one item otherwise than several."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = self.b(self.shaped(self.a(x)).relu())
        return y * 2 if x.shape[0] == 1 else y

    def shaped(self, y):
        return y


class AloneFixed(Alone):
    """Its code knows a width besides."""

    def shaped(self, y):
        return y.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)


class AloneTyped(AloneFixed):
    """And a precision, so that it is compared with its graph instead."""

    def shaped(self, y):
        return super().shaped(y) + torch.zeros((), dtype=torch.float32)


def test_one_item_that_is_treated_otherwise_is_compared_with_itself():
    model = graph(Alone(), 1, 5)
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert (verified.form, verified.batch_sizes) == ("module", (1, 33))


@pytest.mark.parametrize("kind", [AloneFixed, AloneTyped])
def test_a_graph_that_does_not_know_how_one_item_is_treated_is_refused(kind):
    model = graph(kind(), 1, 5)
    before = model.module
    with pytest.raises(VerificationError):
        apply_verified(model, halves(model))
    assert model.module is before


@pytest.fixture
def exports(monkeypatch):
    """The batch size of each export, in order; 0 where it was left free."""
    made = []

    def noted(module, example, *, free_batch=True, **kwargs):
        made.append(0 if free_batch else len(example.args[0]))
        return export(module, example, free_batch=free_batch, **kwargs)

    for home in ("graph.export", "graph.plain.lowering"):
        monkeypatch.setattr(f"demiglace.{home}.export", noted)
    return made


class Summing(Fixed):
    """The batch size decides on a number besides, which no multiple of it is."""

    def forward(self, x):
        return super().forward(x) * torch.arange(x.shape[0] + 1).sum()


@pytest.mark.parametrize(
    ("kind", "form", "sizes"),
    [(Alone, "module", [2]), (Fixed, "graph", [2, 13]), (Summing, "graph", [2, 13, 0])],
)
def test_a_model_is_exported_no_more_often_than_its_form_asks_for(exports, kind, form, sizes):
    model = graph(kind(), 2, 5)
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert verified.form == form
    assert exports == sizes
    for size in (1, 2, 7):
        assert len(model.module(torch.randn(size, 5))) == size


def test_a_model_that_was_exported_is_not_exported_again(exports):
    model = graph(Fixed(), 2, 5)
    assert model.exported is model.specialized
    assert model.traced is model.traced_form
    assert exports == [0]


@pytest.mark.parametrize("kind", [Alone, Fixed])
def test_an_interrupted_proof_leaves_the_model_as_it_was(monkeypatch, kind):
    model = graph(kind(), 2, 5)
    before, compare = model.module, Reference.compare
    cut = [parameter.shape for parameter in before.parameters()]

    def interrupted(reference, module):
        compare(reference, module)
        raise KeyboardInterrupt

    monkeypatch.setattr(Reference, "compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply_verified(model, halves(model))
    assert model.module is before
    assert not model.edits
    assert [parameter.shape for parameter in before.parameters()] == cut
