"""A plain-data graph computes, trains and names its parts as the module that it was traced from."""

from __future__ import annotations

import copy
import tempfile
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from demiglace.artifact import GraphOrigin, load, save
from demiglace.errors import GraphError, UsageError
from demiglace.graph import Example, ModelGraph
from demiglace.graph.plain import PlainGraph, lower


def lowered(module: nn.Module, *args: object, **kwargs: object) -> PlainGraph:
    return lower(ModelGraph(module, Example(args, kwargs)))


def reopened(graph: PlainGraph) -> PlainGraph:
    """The graph by way of an artifact: its text, and copies of its values."""
    with tempfile.TemporaryDirectory() as folder:
        save(ModelGraph(graph), Path(folder) / "graph", origin=GraphOrigin())
        again = load(Path(folder) / "graph")
    assert isinstance(again, PlainGraph)
    return again


def same_training(module: nn.Module, graph: nn.Module, x: torch.Tensor) -> None:
    """One training step gives the same outputs, gradients and statistics, to the bit."""
    outputs = []
    for model in (module.train(), graph.train()):
        torch.manual_seed(1)
        output = model(x)
        output.square().sum().backward()
        outputs.append(output)
    assert torch.equal(*outputs)
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, parameter in graph.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name
    state = module.state_dict()
    for name, tensor in graph.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 32),
        ("mobilenet_v2", 32),
        ("shufflenet_v2_x0_5", 32),
        pytest.param("vit_b_32", 224, marks=pytest.mark.slow),
        pytest.param("swin_t", 64, marks=pytest.mark.slow),
        pytest.param("densenet121", 32, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 32, marks=pytest.mark.slow),
    ],
)
def test_torchvision_networks_are_equal_to_the_bit(name, size):
    torch.manual_seed(0)
    module = torchvision.models.get_model(name)
    for each in module.modules():
        if isinstance(each, torchvision.ops.StochasticDepth):
            each.p = 0.0
    graph = reopened(lowered(module, torch.randn(1, 3, size, size)))
    x = torch.randn(3, 3, size, size)
    module.eval()
    graph.eval()
    with torch.no_grad():
        assert torch.equal(graph(x), module(x))
        assert torch.equal(graph(x[:1]), module(x[:1]))
    assert set(graph.state_dict()) == set(module.state_dict())
    same_training(module, graph, x)


class Net(nn.Module):
    """A forward made of a function, with two layers to take from."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 4, dropout=0.5, num_layers=2, batch_first=True)
        self.instance = nn.InstanceNorm2d(4, track_running_stats=True)
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.function = forward

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


PATTERNS = {
    "twice": lambda m, x: m.conv(F.relu(m.conv(x))),
    "batch norm": lambda m, x: m.norm(m.conv(x)),
    "batch norm twice": lambda m, x: m.norm(m.norm(x)),
    "instance norm": lambda m, x: m.instance(x),
    "dropout": lambda m, x: F.dropout(m.conv(x), 0.5, m.training),
    "channel dropout": lambda m, x: F.dropout2d(m.conv(x), 0.5, m.training),
    "recurrent": lambda m, x: m.lstm(x.flatten(2).transpose(1, 2))[0],
    "in place": lambda m, x: m.conv(x).relu_().mul(2).add_(1),
    "batch size": lambda m, x: m.conv(x).reshape(x.shape[0] * 2, -1).view(x.size(0), -1) / x.shape[0],
    "infinity": lambda m, x: m.conv(x).masked_fill(x > 1.5, -torch.inf).softmax(1),
    "constant": lambda m, x: m.linear(x.mean((2, 3))) * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "buffer": lambda m, x: x + m.table.view(4, 1, 1),
    "new tensors": lambda m, x: x + torch.arange(4, device=x.device, dtype=x.dtype) + torch.zeros_like(x),
    "split": lambda m, x: torch.cat(m.conv(x).chunk(2, 1)[::-1], 1),
    "stack and unbind": lambda m, x: torch.stack(m.conv(x).unbind(1)[:2], 1).sum(-1),
    "attention": lambda m, x: F.scaled_dot_product_attention(*[m.linear(x.flatten(2).mT)] * 3),
    "einsum": lambda m, x: torch.einsum("bchw,bdhw->bcd", m.conv(x), x),
    "interpolate": lambda m, x: F.interpolate(m.conv(x), scale_factor=2, mode="bilinear"),
    "pad": lambda m, x: F.pad(m.conv(x), (1, 0, 2, 1)),
    "index": lambda m, x: m.conv(x)[:, [2, 0]][..., ::2],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_computes_and_trains_alike(pattern):
    torch.manual_seed(0)
    module = Net(PATTERNS[pattern])
    graph = reopened(lowered(module, torch.randn(2, 4, 4, 4)))
    x = torch.randn(5, 4, 4, 4)
    assert torch.equal(graph.eval()(x), module.eval()(x))
    x.requires_grad_()
    same_training(module, graph, x)


def test_a_layer_that_is_kept_in_eval_mode_stays_there():
    torch.manual_seed(0)
    module = Net(PATTERNS["batch norm"])
    graph = reopened(lowered(module, torch.randn(2, 4, 4, 4)))
    for model in (module, graph):
        model.train()
        model.norm.eval()
    x = torch.randn(3, 4, 4, 4)
    assert torch.equal(graph(x), module(x))
    assert torch.equal(graph.norm.running_mean, module.norm.running_mean)


Pair = namedtuple("Pair", "left right")


class Containers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, pairs, *, scale, mode="add", nothing=None):
        y = self.linear(x)
        if mode == "add":
            y = y + pairs["a"][0] * scale + pairs["a"][1]
        return {
            "y": y,
            "parts": [y, (x, None, 3)],
            "pair": Pair(y, self.linear.weight),
            "ordered": OrderedDict(z=y),
        }


def containers(size: int) -> tuple[tuple[object, ...], dict[str, object]]:
    x = torch.randn(size, 3)
    return (x, {"a": (x * 2, x - 1)}), {"scale": x.exp(), "mode": "add", "nothing": None}


def test_containers_of_inputs_and_outputs_keep_their_form():
    module = Containers().eval()
    args, kwargs = containers(2)
    graph = reopened(lowered(module, *args, **kwargs))
    args, kwargs = containers(5)
    expected, found = module(*args, **kwargs), graph(*args, **kwargs)
    assert list(found) == list(expected)
    assert torch.equal(found["y"], expected["y"])
    assert isinstance(found["parts"], list)
    assert found["parts"][1][1:] == (None, 3)
    assert (type(found["pair"]).__name__, found["pair"]._fields) == ("Pair", ("left", "right"))
    assert isinstance(found["ordered"], OrderedDict)
    assert torch.equal(found["pair"].right, module.linear.weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda args, kwargs: args.pop(), "a tuple of 2, not a tuple of 1"),
        (lambda args, kwargs: args.__setitem__(1, {"b": 1}), "a dict with a, not a dict with b"),
        (lambda args, kwargs: args.__setitem__(1, {"a": 1}), "a tuple of 2, not a int"),
        (lambda args, kwargs: kwargs.update(mode="mul"), "traced with 'add' as .*, not 'mul'"),
        (lambda args, kwargs: kwargs.pop("scale"), "scale"),
        (lambda args, kwargs: args.__setitem__(0, torch.zeros(2, 4)), r"not one of shape \[2, 4\]"),
        (lambda args, kwargs: args.__setitem__(0, None), "not None"),
    ],
)
def test_inputs_of_another_form_are_refused(change, said):
    args, kwargs = containers(2)
    graph = lowered(Containers(), *args, **kwargs)
    args = list(args)
    change(args, kwargs)
    with pytest.raises(UsageError, match=said):
        graph(*args, **kwargs)


def test_lowering_leaves_the_module_alone_and_shares_its_tensors():
    module = Net(PATTERNS["dropout"]).train()
    module.norm.eval()
    modes = [each.training for each in module.modules()]
    x, before = torch.randn(2, 4, 4, 4), copy.deepcopy(module.state_dict())
    random = torch.get_rng_state()
    graph = lowered(module, x)
    assert [each.training for each in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert graph.conv.weight is module.conv.weight
    assert graph.training


def test_training_flags_are_those_of_the_module():
    module = Net(PATTERNS["batch norm"]).train()
    module.norm.eval()
    graph = lowered(module, torch.randn(2, 4, 4, 4))
    assert graph.conv.training
    assert not graph.norm.training


def test_tied_parameters_stay_one_under_all_their_names():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    graph = reopened(lowered(module, torch.randn(2, 3)))
    assert graph.get_submodule("1").weight is graph.get_submodule("0").weight
    assert set(graph.state_dict()) == set(module.state_dict())
    assert len(list(graph.parameters())) == 3


def test_what_inference_does_not_run_is_left_out():
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.auxiliary = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> object:
            return (self.main(x), self.auxiliary(x)) if self.training else self.main(x)

    graph = lowered(Auxiliary(), torch.randn(2, 3))
    assert set(graph.state_dict()) == {"main.weight", "main.bias"}


def test_a_bare_layer_is_a_graph_too():
    module = nn.Conv2d(3, 4, 3)
    graph = reopened(lowered(module, torch.randn(2, 3, 5, 5)))
    assert graph.original_types[0] == "Conv2d"
    x = torch.randn(3, 3, 5, 5)
    assert torch.equal(graph(x), module(x))


def test_layers_know_the_classes_that_they_stand_for():
    graph = lowered(torchvision.models.resnet18(), torch.randn(2, 3, 32, 32))
    assert graph.get_submodule("layer1.0.conv1").original_types[:2] == ("Conv2d", "_ConvNd")
    assert graph.get_submodule("layer1.0").original_types[0] == "BasicBlock"
    assert graph.get_submodule("layer1.0.conv1").extra_repr() == "Conv2d"


@pytest.mark.parametrize("targets", [["*"], ["type:Conv2d"], ["layer1.*"], ["type:_NormBase", "fc"]])
def test_selectors_take_the_same_weights_from_module_and_graph(targets):
    module = torchvision.models.resnet18()
    graph = lowered(module, torch.randn(2, 3, 32, 32))
    taken = [
        [(one.name, one.module, one.type) for one in ModelGraph(model).weights(targets)]
        for model in (module, graph)
    ]
    assert taken[0] == taken[1]
    assert taken[0]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_layers_output_is_found_by_its_name(name):
    torch.manual_seed(0)
    module = torchvision.models.get_model(name).eval()
    graph = lowered(module, torch.randn(2, 3, 32, 32))
    seen: dict[str, torch.Tensor] = {}
    handles = [
        each.register_forward_hook(lambda _m, _i, output, path=path: seen.update({path: output}))
        for path, each in module.named_modules()
        if path and not isinstance(each, nn.ReLU)
    ]
    x = torch.randn(2, 3, 32, 32)
    module(x)
    for handle in handles:
        handle.remove()
    nodes = {path: graph.graph_data.output_of(path) for path in seen}
    _, kept = graph.run((x,), {}, keep=set(filter(None, nodes.values())))
    assert sum(node is not None for node in nodes.values()) > len(nodes) * 0.9
    for path, node in nodes.items():
        assert node is None or torch.equal(kept[node], seen[path]), path


def test_a_layer_that_computes_nothing_has_no_output():
    module = nn.Sequential(nn.Linear(3, 3), nn.Identity())
    assert lowered(module, torch.randn(2, 3)).graph_data.output_of("1") is None


class Eval(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "writes":
            self.calls.add_(1)
        if self.how == "assigns":
            self.calls = self.calls + 1
        if self.how == "branches" and x.sum() > 0:
            return x
        if self.how == "custom":
            return torchvision.ops.nms(self.linear(x), x[:, 0], 0.5)
        return self.linear(x)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("branches", "cannot be traced"),
        ("custom", "calls 'torchvision.nms.default', which a plain-data graph cannot hold"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(how, said):
    with pytest.raises(GraphError, match=said) as caught:
        lowered(Eval(how), torch.rand(2, 4))
    assert caught.value.faults[0].hint


@pytest.mark.parametrize("how", ["writes", "assigns"])
def test_a_buffer_that_inference_writes_is_written_by_the_graph_too(how):
    module = Eval(how).eval()
    graph = reopened(lowered(module, torch.rand(2, 4)))
    for _ in range(3):
        graph(torch.rand(5, 4))
    assert graph.calls == module.calls + 3


def test_a_model_that_fixes_its_batch_size_gives_a_graph_of_that_size():
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(int(x.shape[0]), -1) * torch.ones(3, 4)

    graph = lowered(Fixed(), torch.rand(3, 2, 2))
    assert graph(torch.rand(3, 2, 2)).shape == (3, 4)
    with pytest.raises(UsageError, match=r"traced with a tensor of shape \[3, 2, 2\]"):
        graph(torch.rand(4, 2, 2))


def test_a_model_without_an_example_is_refused():
    with pytest.raises(GraphError, match="example"):
        lower(ModelGraph(nn.Linear(2, 2)))


def test_lowering_a_graph_gives_it_back():
    graph = lowered(nn.Linear(2, 2), torch.zeros(2, 2))
    assert lower(ModelGraph(graph)) is graph


def test_intermediate_values_are_let_go_after_their_last_use():
    graph = lowered(nn.Sequential(*[nn.Linear(2, 2) for _ in range(5)]), torch.zeros(2, 2))
    assert sorted(name for names in graph._dead_after.values() for name in names) == sorted(
        [one.name for one in graph.graph_data.inputs] + [node.name for node in graph.graph_data.nodes]
    )
