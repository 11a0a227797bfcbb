"""Graphs of any batch size that are made of two traces with fixed ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from demiglace.graph import Example, ModelGraph
from demiglace.graph.plain import lower


class Net(nn.Module):
    """A layer before what a test does with its outputs."""

    def __init__(self, then):
        super().__init__()
        self.layer, self.then = nn.Linear(6, 4), then

    def forward(self, x, *others):
        return self.then(self.layer(x), *others)


def multiples(y):
    return y.view(y.shape[0] * 2, 2).relu().reshape(-1, 4)


def filled(y):
    return y + y.new_zeros(y.shape[0], 4) + torch.ones(y.shape[0], 1)


def counted(y):
    return y * y.shape[0], y.shape[0], y.shape[0] * 3


def offset(y):
    return torch.cat([y, y.new_ones(1, 4)]).cumsum(0)[: y.shape[0] + 1]


def rooted(y):
    return y * y.shape[0] ** 0.5


def squared(y):
    return y + torch.zeros(y.shape[0] ** 2).sum() + y.shape[0] ** 2


def halved(y):
    return y.reshape(-1, 2)[: y.shape[0]]


def first_half(y):
    return y[: y.shape[0] // 2]


def lifted(y):
    return y * torch.tensor([float(y.shape[0])])


def joined(y, z, table):
    return torch.cat([y, z]) @ table.expand(y.shape[0] * 2, 4, 4)[0]


THEN = [multiples, filled, counted, offset, rooted, squared, halved, first_half]


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("size", [1, 2])
def test_a_graph_computes_what_its_module_does_at_any_batch_size(then, size):
    net = Net(then).eval()
    graph = lower(ModelGraph(net, Example((torch.randn(size, 6),))))
    for items in (2, 3, 5, 8):
        x = torch.randn(items, 6)
        torch.testing.assert_close(graph(x), net(x))


def test_inputs_that_do_not_follow_the_batch_keep_their_sizes():
    net = Net(joined).eval()
    given = torch.randn(2, 6), torch.randn(2, 4), torch.randn(1, 4, 4)
    graph = lower(ModelGraph(net, Example(given)))
    for items in (2, 5):
        given = torch.randn(items, 6), torch.randn(items, 4), given[2]
        torch.testing.assert_close(graph(*given), net(*given))


def test_a_constant_that_follows_the_batch_is_not_taken_for_one():
    net = Net(lifted).eval()
    model = ModelGraph(net, Example((torch.randn(2, 6),)))
    assert model.graph_form.program is model.exported


def test_sizes_are_nodes_and_shapes_name_the_batch():
    model = ModelGraph(Net(multiples).eval(), Example((torch.randn(2, 6),)))
    data = model.graph_form.data
    assert model.graph_form.program is model.specialized
    assert [node.op for node in data.nodes[:2]] == ["aten.sym_size.int", "operator.mul"]
    assert data.inputs[0].shape == ["s0", 6]
    assert [node.shape for node in data.nodes if "view" in node.op] == [["2*s0", 2]]
    assert [node.args[1] for node in data.nodes if "reshape" in node.op] == [[-1, 4]]
