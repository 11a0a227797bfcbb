"""Inputs of a model's layers beside those of the model that it was made of."""

import pytest
import torch
from torch import nn

from demiglace.calibration import InputsOf, PairedGram, calibrate_beside, input_rows
from demiglace.data import Batch
from demiglace.errors import GraphError
from demiglace.graph import ModelGraph
from demiglace.passes import Context


def _nets():
    """Two networks that differ in their first layer."""
    torch.manual_seed(0)
    return [nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2)).eval() for _ in range(2)]


def _batches():
    torch.manual_seed(1)
    full = [Batch((torch.randn(size, 3, 5, 5),)) for size in (4, 2)]
    return [full[0], Batch((torch.randn(0, 3, 5, 5),)), full[1]]


def _gather(original, model, batches, layer="1"):
    gram = PairedGram()
    context = Context(seed=0, device=torch.device("cpu"))
    calibrate_beside(original, ModelGraph(model), batches, {layer: InputsOf(gram)}, {layer: gram}, context)
    return gram


def test_sums_are_those_of_both_networks_rows_and_empty_batches_do_not_shift_them():
    original, model = _nets()
    gram = _gather(original, model, _batches())
    values = torch.cat([batch.args[0] for batch in _batches()])
    with torch.no_grad():
        own, other = (
            torch.cat(list(input_rows(net[1], net[0](values))), 1).double() for net in (model, original)
        )
    assert gram.rows == own.shape[1]
    torch.testing.assert_close(gram.matrix, own.transpose(1, 2) @ own)
    torch.testing.assert_close(gram.across, other.transpose(1, 2) @ own)
    torch.testing.assert_close(gram.total, own.sum(1))
    torch.testing.assert_close(gram.others_total, other.sum(1))
    assert not torch.allclose(gram.across, gram.matrix)


class Forgetful(nn.Module):
    """Overwrites its layer's input once that has run."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, values):
        values = values * 2
        output = self.layer(values)
        values.zero_()
        return output


def test_what_the_other_network_does_in_place_afterwards_does_not_reach_the_sums():
    gram = _gather(Forgetful().eval(), Forgetful().eval(), [Batch((torch.ones(4, 3),))], layer="layer")
    torch.testing.assert_close(gram.across, torch.full((1, 3, 3), 16.0, dtype=torch.float64))
    torch.testing.assert_close(gram.others_total, gram.total)


def test_data_that_is_not_finite_is_refused():
    original, model = _nets()
    batch = Batch((torch.full((2, 3, 5, 5), torch.nan),))
    with pytest.raises(GraphError, match="NaN"):
        _gather(original, model, [batch])
