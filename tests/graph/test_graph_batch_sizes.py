"""What is verified of other batch sizes than the example's, and when they are left free."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from demiglace.errors import VerificationError
from demiglace.graph import Example, ModelGraph, apply_verified, removal_edits
from demiglace.graph.export import export


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
    """Whether each export left the batch size free, in order."""
    made = []

    def noted(*args, free_batch=True, **kwargs):
        made.append(free_batch)
        return export(*args, free_batch=free_batch, **kwargs)

    monkeypatch.setattr("demiglace.graph.export.export", noted)
    return made


@pytest.mark.parametrize(("kind", "free"), [(Alone, [False]), (Fixed, [False, True])])
def test_only_a_model_that_becomes_a_graph_is_exported_with_its_batch_size_free(exports, kind, free):
    model = graph(kind(), 2, 5)
    _, verified = apply_verified(model, halves(model))
    assert verified is not None
    assert verified.form == ("graph" if True in free else "module")
    assert exports == free


def test_a_model_that_was_exported_is_not_exported_again(exports):
    model = graph(Fixed(), 2, 5)
    assert model.exported is model.specialized
    assert model.traced is model.traced_exported
    assert exports == [True]
