"""`quantize.edges`: which values become integers, and that the model computes with them everywhere."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact.inspection import inspect
from demiglace.errors import GraphError, RecipeError
from demiglace.graph import Example, Lower, ModelGraph, Round, apply
from demiglace.graph.plain import PlainGraph, lower, out_of_place
from demiglace.measure import measure

X = torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(0))
STEPS = [{"use": "quantize.static", "samples": 32}, {"use": "quantize.edges", "samples": 32}]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.stem(x))
        out = self.conv(x)
        out += x
        out = nn.functional.max_pool2d(self.relu(out), 2)
        return self.last(nn.functional.adaptive_avg_pool2d(out, 1).flatten(1))


def made(module):
    torch.manual_seed(0)
    return module().eval()


def run(module, values=X, out=None, steps=STEPS):
    return demiglace.run({"pass": steps}, model=module, data=[values], example_inputs=values[:2], out=out)


def operators(graph):
    return {node.name: node.op for node in graph.graph_data.nodes}


def test_sums_pooling_and_activations_work_on_integers_alone(tmp_path):
    module = made(Residual)
    before = module(X)
    result = run(module, out=tmp_path / "run")
    graph = result.model
    assert isinstance(graph, PlainGraph)
    rounded = {name.removesuffix(".rounded") for name, op in operators(graph).items() if "rounded" in op}
    nodes = {node.name: node for node in graph.graph_data.nodes}
    for node in nodes.values():
        if node.op.startswith(("aten.add", "aten.max_pool2d", "aten.adaptive_avg_pool2d")):
            assert all(one.name.endswith(".rounded") for one in node.references())
    assert {nodes[name].op.split(".")[1] for name in rounded} >= {"relu", "static_convolution", "max_pool2d"}
    assert torch.cosine_similarity(graph(X), before).min() > 0.99
    assert torch.equal(demiglace.load(tmp_path / "run")(X), graph(X))


def test_a_rounded_value_has_255_steps_and_pooling_keeps_them():
    graph = run(made(Residual)).model
    seen = {}
    graph.run((X,), {}, see=seen.setdefault)
    scales = {node.name: node.args[1:] for node in graph.graph_data.nodes if "rounded" in node.op}
    for name, (scale, zero) in scales.items():
        integers = seen[name] / scale + zero
        assert torch.allclose(integers, integers.round(), atol=1e-3)
        assert integers.min() >= -128.5
        assert integers.max() <= 127.5
    pooled = next(name for name in scales if name.startswith("max_pool2d"))
    assert torch.equal(seen[pooled], seen[pooled.removesuffix(".rounded")])


def test_after_a_relu_the_zero_point_is_the_smallest_integer():
    graph = run(made(Residual)).model
    zeros = [
        node.args[2]
        for node in graph.graph_data.nodes
        if node.name.startswith("relu") and "rounded" in node.op
    ]
    assert zeros
    assert set(zeros) == {-128.0}


def test_layers_take_their_inputs_in_the_range_that_they_were_rounded_in():
    graph = run(made(Residual)).model
    nodes = {node.name: node for node in graph.graph_data.nodes}
    shared = [
        (nodes[node.args[0].name].args[1:], node.args[1:3])
        for node in nodes.values()
        if "static" in node.op and node.args[0].name.endswith(".rounded")
    ]
    assert len(shared) == 2
    tensors = dict(graph.named_buffers())
    for (scale, zero), (held_scale, held_zero) in shared:
        assert float(tensors[held_scale.name]) == pytest.approx(scale)
        assert float(tensors[held_zero.name]) == zero


def test_a_feed_forward_of_linear_layers_and_its_outputs_stay_floating_point():
    module = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.raises(GraphError, match="nothing flows between"):
        run(module, torch.randn(16, 6))


def test_without_integer_layers_it_says_what_to_put_before():
    steps = [{"use": "quantize.weight_only"}, STEPS[1]]
    with pytest.raises(RecipeError, match=r"activations\.int8"):
        run(made(Residual), steps=steps)


def test_a_change_in_place_that_others_see_stays_in_place():
    class Shared(nn.Module):
        def forward(self, x):
            y = x * 2
            first = y.view(-1)
            y.add_(1)
            return first + y.view(-1).relu_()

    model = ModelGraph(Shared(), Example((torch.ones(2, 3),)))
    graph = lower(model)
    data = out_of_place(graph.graph_data)
    assert "aten.add_.Tensor" in [node.op for node in data.nodes]
    model.module = PlainGraph(data, {})
    assert torch.equal(model.module(torch.ones(2, 3)), Shared()(torch.ones(2, 3)))


def test_values_that_are_not_there_or_change_later_are_refused():
    model = ModelGraph(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), Example((torch.ones(2, 3),)))
    with pytest.raises(GraphError, match="plain-data graph only"):
        apply(model, [Round({"linear": (0.1, 0)})])
    with pytest.raises(GraphError, match="no value 'nowhere'"):
        apply(model, [Lower(), Round({"nowhere": (0.1, 0)})])
    assert isinstance(model.module, nn.Sequential)


def test_edges_after_training_with_integers():
    steps = [
        {"use": "train.supervised", "epochs": 4, "with": [{"use": "quantize.qat"}]},
        {"use": "quantize.edges", "samples": 32},
    ]
    data = {"train": [(X, torch.arange(32) % 3)]}
    result = demiglace.run({"pass": steps}, model=made(Residual), data=data)
    assert any("rounded" in op for op in operators(result.model).values())


class Odd(nn.Module):
    """Rows of 27, 63 and 7: at 4 bits they do not fill their bytes."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(3, 7, 3), nn.Conv2d(7, 7, 3), nn.Linear(7, 3)

    def forward(self, x):
        return self.last(self.conv(self.first(x).relu()).relu().mean((2, 3)))


def test_weights_of_rows_that_fill_no_bytes_are_counted_and_packed(tmp_path):
    static = {"use": "quantize.static", "bits": 4, "samples": 32}
    steps = [static, STEPS[1], {"use": "export.packed"}]
    module = made(Odd)
    count = sum(one.numel() for one in module.parameters())
    result = run(module, out=tmp_path / "run", steps=steps)
    assert isinstance(result.model, PlainGraph)
    assert measure(ModelGraph(result.model)).parameters == count
    file = tmp_path / "run" / "steps" / "03-packed" / "model.dgz"
    assert torch.equal(demiglace.load(file)(X), result.model(X))
    bits = {one.name: one.bits for one in inspect(file).tensors if one.name.endswith("weight_codes")}
    assert bits == {"first.weight_codes": 4, "conv.weight_codes": 4, "last.weight_codes": 4}
