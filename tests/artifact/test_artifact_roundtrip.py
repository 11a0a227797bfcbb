"""A saved model opens to the same model: values, masks, ties, flags, memory, edits, digest."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from demiglace.artifact import (
    CallerOrigin,
    GraphOrigin,
    SourceOrigin,
    load,
    open_artifact,
    read_info,
    save,
    state_digest,
)
from demiglace.artifact.snapshot import is_dense
from demiglace.errors import ArtifactError
from demiglace.graph import Cut, Example, Mask, ModelGraph, SetAttr, apply
from demiglace.graph.names import named_tensors, tied_names
from demiglace.graph.plain import PlainGraph, lower

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64),
    *(torch.bool, torch.uint16, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
    torch.float8_e8m0fnu,
]

IN_A_FRESH_PROCESS = """
import sys, torch, torchvision
def refuse(event, _):
    assert event not in {"pickle.find_class", "socket.connect"}, event
sys.addaudithook(refuse)
from safetensors.torch import load_file, save_file
from demiglace.artifact import load
for path in sys.argv[1:]:
    name, given, _ = path.rsplit("/", 1)[1].split("-")
    model = (lambda: torchvision.models.get_model(name)) if given == "caller" else None
    resolve = (lambda name, _: lambda: torchvision.models.get_model(name)) if given == "source" else None
    module = load(path, model=model, resolve=resolve)
    expected = load_file(path + ".check")
    with torch.no_grad():
        assert torch.equal(module(expected["x"]), expected["y"]), path
"""


def halved_block(model: ModelGraph) -> None:
    """Cut half the channels between the two convolutions of a resnet's first block."""
    kept = tuple(range(0, 64, 2))
    names = ("bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "conv1.weight")
    edits = [Cut(f"layer1.0.{name}", 0, kept) for name in names]
    edits += [Cut("layer1.0.conv2.weight", 1, kept), SetAttr("layer1.0.conv1", "out_channels", 32)]
    apply(model, edits).commit()


def trained(name: str) -> nn.Module:
    """A network whose weights and statistics no constructor draws."""
    torch.manual_seed(7)
    model = torchvision.models.get_model(name)
    with torch.no_grad():
        for _, tensor in named_tensors(model):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.01)
    return model.eval()


def expect(path: Path, model: nn.Module) -> str:
    """Keep inputs and outputs beside an artifact for another process to compare; its path."""
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        save_file({"x": x, "y": model(x)}, f"{path}.check")
    return str(path)


@pytest.mark.slow
def test_outputs_are_bit_equal_in_a_fresh_process(tmp_path):
    torch.set_num_threads(1)
    paths = []
    for name in ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"]:
        for origin_of in ["caller", "source", "neither"]:
            model = trained(name)
            graph = ModelGraph(model, Example((torch.randn(1, 3, 32, 32),)))
            origin = SourceOrigin(name) if origin_of == "source" else CallerOrigin.of(model)
            if name == "resnet18":
                halved_block(graph)
            path = tmp_path / f"{name}-{origin_of}-art"
            save(graph, path, origin=origin, graph=lower(graph) if origin_of == "neither" else None)
            paths.append(expect(path, model))
    command = [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, *paths]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


class Constant(nn.Module):
    """Holds a value that only tracing finds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * torch.tensor([1.0, 2.0, 3.0])


def test_a_module_opens_as_itself_when_its_graph_is_stored_too(tmp_path):
    model = Constant()
    graph = ModelGraph(model, Example((torch.randn(2, 3),)))
    save(graph, tmp_path / "m", origin=CallerOrigin.of(model), graph=lower(graph))
    x = torch.randn(5, 3)
    assert isinstance(load(tmp_path / "m", model=Constant), Constant)
    assert torch.equal(load(tmp_path / "m")(x), model(x))


def test_a_model_in_graph_form_opens_as_a_graph(tmp_path):
    model = trained("resnet18")
    graph = lower(ModelGraph(model, Example((torch.randn(1, 3, 32, 32),)))).train()
    graph.get_submodule("layer1.0.bn1").eval()
    info = save(ModelGraph(graph), tmp_path / "model", origin=GraphOrigin())
    again = open_artifact(tmp_path / "model")
    assert isinstance(again.module, PlainGraph)
    assert again.module.training
    assert not again.module.get_submodule("layer1.0.bn1").training
    assert state_digest(again.model_graph()) == info.digest
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(again.module.eval()(x), model(x))


class Odd(nn.Module):
    """Tensors of every kind that a module may hold."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.table.weight
        self.shared = self.alias = nn.Linear(4, 4)
        self.conv = nn.Conv2d(4, 2, 3)
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.scalar = nn.Parameter(torch.tensor(0.0))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("nothing", None)
        self.register_buffer("typed", torch.zeros(5).to(dtype))
        self.transposed = nn.Parameter(torch.zeros(3, 5))

    def fill(self) -> Odd:
        """Values, and a memory layout, that the constructor does not give."""
        torch.manual_seed(3)
        with torch.no_grad():
            for _, tensor in named_tensors(self):
                tensor.copy_(torch.rand(tensor.shape) * 10)
            self.transposed.data = torch.rand(5, 3).t()
            self.conv.to(memory_format=torch.channels_last)
        self.shared.eval()
        return self


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_tensor_comes_back(tmp_path, dtype):
    model = Odd(dtype).fill()
    origin = CallerOrigin.of(model)
    info = save(ModelGraph(model), tmp_path / "model", origin=origin)
    again = load(tmp_path / "model", model=lambda: Odd(dtype))
    assert again.head.weight is again.table.weight
    for (name, old), (_, new) in zip(named_tensors(model), named_tensors(again), strict=True):
        assert (new.dtype, new.stride(), new.requires_grad) == (old.dtype, old.stride(), old.requires_grad), (
            name
        )
        assert type(new) is type(old)
        assert bytes_of(new) == bytes_of(old), name
    assert [each.training for each in again.modules()] == [each.training for each in model.modules()]
    assert set(again.state_dict()) == set(model.state_dict())
    assert state_digest(ModelGraph(again)) == info.digest


def bytes_of(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().tobytes()


def test_the_file_is_a_safetensors_file(tmp_path):
    model = Odd().fill()
    save(ModelGraph(model), tmp_path / "model", origin=CallerOrigin.of(model))
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    named = dict(named_tensors(model))
    assert set(tensors) == set(named) - {name for group in tied_names(model) for name in group[1:]}
    assert all(torch.equal(tensors[name], named[name]) for name in tensors)


def test_equal_models_give_equal_files(tmp_path):
    for name in ("a", "b"):
        model = trained("shufflenet_v2_x0_5")
        save(ModelGraph(model), tmp_path / name, origin=SourceOrigin("shufflenet"))
    for file in ("model.safetensors", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 9), max_size=3), seed=st.integers(0, 99))
def test_masks_come_back_bit_by_bit(tmp_path_factory, shape, seed):
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(shape))
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    graph = ModelGraph(model)
    apply(graph, [Mask("weight", keep)]).commit()
    path = tmp_path_factory.mktemp("mask") / "model"
    save(graph, path, origin=CallerOrigin.of(model))
    again = open_artifact(path, model=copy.deepcopy(model))
    assert torch.equal(again.masks["weight"], keep)
    assert (path / "model.safetensors").stat().st_size <= 4 * keep.numel() + keep.numel() / 8 + 300


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.module.scalar.data.add_(1),
        lambda m: m.module.hidden.add_(1),
        lambda m: m.module.frozen.requires_grad_(True),
        lambda m: m.module.conv.train(not m.module.conv.training),
        lambda m: m.masks.update(scalar=torch.tensor(True)),
        lambda m: m.edits.append(SetAttr("conv", "stride", 2)),
        lambda m: m.module.conv.to(memory_format=torch.contiguous_format),
        lambda m: m.module.double(),
        lambda m: setattr(m.module.head, "weight", nn.Parameter(m.module.table.weight.detach().clone())),
    ],
)
def test_the_digest_tells_every_difference_that_an_artifact_keeps(change):
    model = ModelGraph(Odd().fill())
    before = state_digest(model)
    assert before == state_digest(ModelGraph(Odd().fill()))
    change(model)
    assert state_digest(model) != before


def test_provenance_and_place_are_not_in_the_digest(tmp_path):
    model = ModelGraph(Odd().fill())
    origin = CallerOrigin.of(model.module)
    first = save(model, tmp_path / "a", origin=origin, provenance={"demiglace": "1"})
    second = save(model, tmp_path / "b", origin=origin, provenance={"demiglace": "2"})
    assert first.digest == second.digest == state_digest(model)


def test_transform_and_provenance_come_back(tmp_path):
    model = Odd()
    transform = [{"name": "Normalize", "mean": [0.5], "std": [0.25]}]
    save(
        ModelGraph(model),
        tmp_path / "m",
        origin=CallerOrigin.of(model),
        transform=transform,
        provenance={"torch": "9"},
    )
    artifact = open_artifact(tmp_path / "m", model=model)
    assert list(artifact.transform) == transform
    assert artifact.info.provenance == {"torch": "9"}


def test_opening_draws_no_random_numbers(tmp_path):
    save(ModelGraph(nn.Linear(3, 3)), tmp_path / "m", origin=SourceOrigin("linear"))
    before = torch.get_rng_state()
    load(tmp_path / "m", resolve=lambda *_: lambda: nn.Linear(3, 3))
    assert torch.equal(torch.get_rng_state(), before)


class Stubborn(nn.Module):
    """Cannot be built on the meta device alone."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        if how == "value":
            assert float(torch.ones(1).sum()) == 1.0
        if how == "attribute":
            self.scale = torch.full((3,), 2.0)
        if how == "list":
            self.held = [self.linear.weight]
        if how == "recurrent":
            self.lstm = nn.LSTM(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.held[0] if hasattr(self, "held") else self.linear.weight
        y = nn.functional.linear(x, weight) * getattr(self, "scale", 1.0)
        return self.lstm(y)[0] if hasattr(self, "lstm") else y


BY = ["source", "caller"]


def opened(folder, model, build, by):
    """The model saved, and loaded by what a source or the caller gives to build it."""
    save(ModelGraph(model), folder, origin=SourceOrigin("s") if by == "source" else CallerOrigin.of(model))
    return load(folder, resolve=lambda *_: build) if by == "source" else load(folder, model=build)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("how", ["value", "attribute", "list", "recurrent"])
def test_structures_that_the_meta_device_cannot_hold_are_built_on_the_cpu(tmp_path, how, by):
    model = Stubborn(how)
    again = opened(tmp_path / "m", model, lambda: Stubborn(how), by)
    x = torch.randn(2, 3)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("by", BY)
def test_structures_are_built_on_the_meta_device_where_they_can(tmp_path, by):
    seen = []

    def build():
        seen.append(torch.empty(1).device.type)
        return nn.Linear(3, 3)

    opened(tmp_path / "m", nn.Linear(3, 3), build, by)
    assert seen == ["meta"]


def test_a_factory_that_loads_weights_of_its_own_says_nothing_of_it(tmp_path, recwarn):
    def build():
        module = nn.Linear(3, 3)
        module.load_state_dict({"weight": torch.ones(3, 3), "bias": torch.ones(3)})
        return module

    model = nn.Linear(3, 3)
    again = opened(tmp_path / "m", model, build, "caller")
    assert torch.equal(again.weight, model.weight)
    assert [str(one.message) for one in recwarn] == []


def test_a_callers_module_keeps_its_parameters_identity(tmp_path):
    model = Odd().fill()
    save(ModelGraph(model), tmp_path / "m", origin=CallerOrigin.of(model))
    given = Odd()
    weight = given.conv.weight
    assert load(tmp_path / "m", model=given) is given
    assert given.conv.weight is weight
    assert torch.equal(weight, model.conv.weight)


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_any_order_of_dimensions_counts_as_dense(order, shape):
    tensor = torch.empty(shape).permute(order)
    assert is_dense(tuple(tensor.shape), tensor.stride())


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, 1).expand(3, 4), torch.zeros(6)[::2], torch.zeros(4, 4)[:, :2]]
)
def test_gaps_and_overlaps_do_not_count_as_dense(tensor):
    assert not is_dense(tuple(tensor.shape), tensor.stride())


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.zeros(3, device="meta")])
def test_what_holds_no_plain_values_is_refused_by_name(tmp_path, tensor):
    model = nn.Module()
    model.register_buffer("strange", tensor)
    with pytest.raises(ArtifactError, match="'strange'"):
        save(ModelGraph(model), tmp_path / "m", origin=SourceOrigin("s"))
    assert not os.listdir(tmp_path)


def test_reading_what_an_artifact_is_needs_no_torch(tmp_path):
    model = Odd()
    save(ModelGraph(model), tmp_path / "m", origin=CallerOrigin.of(model))
    code = "import sys, demiglace.artifact as a; a.read_info(sys.argv[1]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True)
    assert read_info(tmp_path / "m").state.tensors["scalar"].shape == ()
