import math

import pytest
import torch
from torch import nn

from demiglace.calibration import (
    Histogram,
    InputGram,
    Moments,
    Ranges,
    Several,
    Taylor,
    ZeroShare,
    calibrate,
    calibration_batches,
    execution_order,
)
from demiglace.data import Batch, Data, TensorSplit
from demiglace.errors import GraphError, UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context


def _context(**given):
    return Context(seed=0, device=torch.device("cpu"), **given)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(100, 5),
    )


def _batches(count=3, size=4):
    torch.manual_seed(1)
    return [Batch((torch.randn(size, 3, 5, 5),), {}, torch.randint(0, 5, (size,))) for _ in range(count)]


def _run(module, collectors, batches=None, **options):
    calibrate(
        ModelGraph(module), _batches() if batches is None else batches, collectors, _context(), **options
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(2, 0)),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, padding=2, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(4, 6, 5, stride=2, padding=1),
        nn.Conv3d(4, 2, 3),
        nn.Linear(8, 3),
    ],
)
def test_the_gram_matrix_gives_each_output_its_energy(layer):
    """With w the weight of one output, w^T G w is the sum of the squares of that output without bias."""
    torch.manual_seed(0)
    spatial = 1 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    shape = (2, 7, 8) if isinstance(layer, nn.Linear) else (3, 4, *[8] * spatial)
    layer = layer.double()
    values = torch.randn(*shape, dtype=torch.float64)
    gram = InputGram()
    calibrate(ModelGraph(nn.Sequential(layer)), [Batch((values,))], {"0": gram}, _context())
    layer.bias.data.zero_()
    axis = -1 if isinstance(layer, nn.Linear) else 1
    outputs = layer(values).movedim(axis, 0).flatten(1)
    weight = layer.weight.flatten(1).unflatten(0, (gram.matrix.shape[0], -1))
    energy = torch.einsum("goi,gij,goj->go", weight, gram.matrix, weight).flatten()
    torch.testing.assert_close(energy, outputs.square().sum(1))
    sums = torch.einsum("goi,gi->go", weight, gram.total).flatten()
    torch.testing.assert_close(sums, outputs.sum(1))
    assert gram.rows == outputs.shape[1]


def test_statistics_over_batches_are_those_of_all_examples_together():
    net = _net().eval()
    batches = _batches()
    moments, ranges, zeros = Moments("output"), Ranges("output"), ZeroShare(axis=1)
    _run(net, {"0": Several(moments, ranges), "2": zeros}, batches)
    everything = torch.cat([batch.args[0] for batch in batches])
    with torch.no_grad():
        conv = net[0](everything)
        relu = torch.relu(net[1](conv))
    torch.testing.assert_close(moments.mean.float(), conv.mean((0, 2, 3)))
    torch.testing.assert_close(moments.variance.float(), conv.var((0, 2, 3), correction=0))
    torch.testing.assert_close(ranges.low, conv.amin((0, 2, 3)))
    torch.testing.assert_close(ranges.absmax, conv.abs().amax((0, 2, 3)))
    torch.testing.assert_close(zeros.share.float(), (relu == 0).float().mean((0, 2, 3)))


def test_a_histogram_that_grows_counts_every_value_in_its_bin():
    small, large = torch.linspace(-1, 1, 1001), torch.linspace(-50, 30, 4001)
    histogram = Histogram(bins=64)
    for values in (torch.zeros(7), small, large):
        calibrate(ModelGraph(nn.Identity()), [Batch((values,))], {".": histogram}, _context())
    everything = torch.cat([torch.zeros(7), small, large])
    edges = torch.arange(-64, 65) * histogram.width
    expected = torch.histogram(everything.double(), edges.double()).hist
    assert histogram.counts.sum() == everything.numel()
    assert (histogram.counts - expected).abs().max() <= 2  # values on an edge
    assert (histogram.low, histogram.high) == (-50, 30)


def test_taylor_importance_is_the_loss_change_to_first_order_despite_inplace_layers():
    net = _net().eval()
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    batch = _batches(1, 1)[0]
    taylor = Taylor()

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch.labels)

    _run(net, {"0": taylor}, [batch], loss=loss)
    assert all(parameter.grad is None for parameter in net.parameters())
    gate = torch.ones(4, requires_grad=True)
    outputs = net[1:](net[0](batch.args[0]) * gate.view(1, 4, 1, 1))
    loss(outputs, batch).backward()
    torch.testing.assert_close(taylor.importance.float(), gate.grad.abs())


def test_a_calibration_leaves_no_trace():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, value):
            self.calls += 1
            return value + torch.rand(())

    net = nn.Sequential(_net(), Careless()).train()
    net[0][2].eval()
    modes = [one.training for one in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    batches = _batches()
    random = torch.get_rng_state()
    _run(net, {"0.0": InputGram()}, batches)
    assert [one.training for one in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(one._forward_hooks for one in net.modules())


def test_stopping_early_runs_what_follows_only_once_and_loses_no_call():
    net = _net()
    calls = []
    net[4].register_forward_hook(lambda *_: calls.append(1))
    stopped, whole = InputGram(), InputGram()
    _run(net, {"0": stopped}, stop_early=True)
    assert len(calls) == 1
    _run(net, {"0": whole})
    torch.testing.assert_close(stopped.matrix, whole.matrix)
    assert stopped.calls == whole.calls == 3


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_where_they_are(poison):
    batches = _batches()
    batches[1].args[0][0, 0, 0, 0] = poison
    with pytest.raises(GraphError, match="calibration data holds NaN"):
        _run(_net(), {"4": InputGram()}, batches)
    net = _net()
    net[0].bias.data[0] = poison
    with pytest.raises(GraphError, match="layer '4'"):
        _run(net, {"4": InputGram()})


def test_data_that_cannot_calibrate_is_refused_with_what_is_wrong():
    with pytest.raises(UsageError, match="empty"):
        _run(_net(), {"0": InputGram()}, [])
    with pytest.raises(UsageError, match=r"\[2, 3, 9, 9\]"):
        _run(_net(), {"0": InputGram()}, [Batch((torch.zeros(2, 3, 9, 9),))])
    with pytest.raises(GraphError, match="no layer 'head'"):
        _run(_net(), {"head": InputGram()})
    with pytest.raises(UsageError, match="loss"):
        _run(_net(), {"0": Taylor()})
    frozen = _net().requires_grad_(False)
    with pytest.raises(UsageError, match="no gradient reaches layer '0'"):
        _run(frozen, {"0": Taylor()}, loss=lambda outputs, batch: outputs.sum())


def test_calibration_examples_are_the_same_each_time_of_all_classes_and_no_more_than_asked():
    labels = torch.arange(1000) // 100
    data = Data({"train": TensorSplit(torch.arange(1000.0)[:, None], labels)})
    batches = calibration_batches(_context(data=data), 70, batch_size=32)
    first, second = list(batches), list(batches)
    assert [len(batch) for batch in first] == [32, 32, 6]
    assert len(batches) == 3
    assert all(torch.equal(a.args[0], b.args[0]) for a, b in zip(first, second, strict=True))
    assert len(set(torch.cat([batch.labels for batch in first]).tolist())) == 10
    with pytest.raises(UsageError, match="no data"):
        calibration_batches(_context(), 70)


def test_layers_that_read_one_tensor_are_one_group_in_execution_order():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.v, self.k, self.q = (nn.Linear(4, 4) for _ in range(4))
            self.unused = nn.Linear(4, 4)

        def forward(self, x):
            return self.out(torch.softmax(self.q(x) @ self.k(x).T, -1) @ self.v(x))

    groups = execution_order(
        ModelGraph(Attention()), Batch((torch.zeros(3, 4),)), ["out", "v", "k", "q", "unused"]
    )
    assert groups == [["q", "k", "v"], ["out"]]


def test_a_histogram_of_many_values_weighs_for_all_and_lets_every_channel_have_a_turn():
    values = torch.arange(64.0).repeat(20_000, 1)
    histogram = Histogram(bins=64)
    calibrate(ModelGraph(nn.Identity()), [Batch((values,))], {".": histogram}, _context())
    assert histogram.counts.sum() == pytest.approx(values.numel())
    seen = histogram.counts[64:]
    assert float(seen[seen > 0].min()) > 0.9 * 20_000


class OfDict(nn.Module):
    """Takes all its inputs in one dict, as some encoders do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.layer(inputs["values"])


def test_padding_is_left_out_where_inputs_come_in_a_dict():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    gram = InputGram()
    batch = Batch(({"values": torch.ones(2, 3, 4), "attention_mask": mask},))
    _run(OfDict(), {"layer": gram}, [batch])
    assert gram.rows == 3


def test_data_in_a_dict_that_is_not_finite_is_told_to_be_so():
    batch = Batch(({"values": torch.full((2, 3, 4), torch.inf)},))
    with pytest.raises(GraphError, match="the calibration data holds NaN or infinity"):
        _run(OfDict(), {"layer": InputGram()}, [batch])
