"""Quantizers on models in plain-data graph form: what they do to a module, saved and opened again."""

import copy
import json

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import ArtifactError, GraphError, RecipeError
from demiglace.graph import Cut, Example, Lower, ModelGraph, apply
from demiglace.graph.plain import PlainGraph, from_json, to_json
from demiglace.quantization import Scheme, round_weight, select_layers, weight_only_swap

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(32, 3, 8, 8, generator=DRAW)
IDS = torch.arange(64).view(4, 16) % 60


class Activated(nn.BatchNorm2d):
    """A batch norm that has its activation as a child."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class Folded(nn.Module):
    """Convolutions with batch norms and a width written into the forward."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8)
        self.mixed, self.acted = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), Activated(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.inner, self.out = nn.Linear(6 * 64, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.up(self.acted(self.mixed(torch.relu(self.norm(self.stem(x))))))
        return self.out(torch.relu(self.inner(x.reshape(-1, 384))))


class Texts(nn.Module):
    """An embedding, attention that reads its weights, and a head that shares the embedding's table."""

    def __init__(self):
        super().__init__()
        self.words, self.attend = nn.Embedding(60, 32), nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 60)
        self.head.weight = self.words.weight

    def forward(self, ids):
        x = self.words(ids)
        return self.head(self.norm(x + self.attend(x, x, x, need_weights=False)[0]))


NETS = {"folded": (Folded, IMAGES), "texts": (Texts, IDS)}
PASSES = {
    "int8": {"use": "quantize.weight_only"},
    "int4 in groups": {"use": "quantize.weight_only", "bits": 4, "group_size": 8},
    "gptq": {"use": "quantize.weight_only", "bits": 4, "method": "gptq"},
    "dynamic": {"use": "quantize.dynamic"},
    "static": {"use": "quantize.static"},
    "cast": {"use": "quantize.cast"},
}


def made(kind):
    torch.manual_seed(0)
    module = NETS[kind][0]().train()
    with torch.no_grad():
        for _ in range(3):
            module(NETS[kind][1])
    return module.eval()


def lowered(module, example):
    model = ModelGraph(module, Example((example[:2],)))
    apply(model, [Lower()]).commit()
    return model.module


def quantized(module, kind, options, out=None):
    inputs = NETS[kind][1]
    data = [(inputs[:16],), (inputs[16:],)] if kind == "folded" else [(inputs,)]
    return demiglace.run({"pass": [options]}, model=module, data=data, example_inputs=inputs[:2], out=out)


def outputs(module, kind):
    with torch.no_grad():
        return module(NETS[kind][1])


@pytest.mark.parametrize("options", PASSES.values(), ids=PASSES)
@pytest.mark.parametrize("kind", NETS)
def test_a_graph_becomes_what_its_module_becomes(kind, options, tmp_path):
    module, graph = made(kind), lowered(made(kind), NETS[kind][1])
    dense = outputs(module, kind)
    expected = quantized(module, kind, options)
    found = quantized(graph, kind, options, tmp_path / "run")
    assert isinstance(found.model, PlainGraph)
    assert found.model is graph
    values = outputs(graph, kind)
    assert not torch.equal(values, dense)
    # A graph calls other operators than torch's fused ones, which sixteen bits round apart.
    share = 0.02 if options["use"] == "quantize.cast" else 1e-5
    torch.testing.assert_close(values, outputs(module, kind), rtol=0, atol=share * float(dense.abs().max()))
    ours, theirs = found.record.steps[0], expected.record.steps[0]
    assert ours.after.parameters == theirs.after.parameters
    assert ours.after.bits == theirs.after.bits
    assert ours.after.macs == theirs.after.macs == theirs.before.macs
    if "quantized_layers" in theirs.figures:
        assert ours.figures["quantized_layers"] == theirs.figures["quantized_layers"]
    opened = demiglace.load(tmp_path / "run")
    assert torch.equal(outputs(opened, kind), values)
    assert opened.state_dict().keys() == graph.state_dict().keys()


@pytest.mark.parametrize("options", [PASSES["gptq"], PASSES["static"]], ids=["gptq", "static"])
def test_what_a_cut_turned_into_a_graph_is_quantized_packed_and_opened(options, tmp_path):
    passes = [{"use": "prune.channels", "amount": 0.5}, options, {"use": "export.packed"}]
    data = [(IMAGES[:16],), (IMAGES[16:],)]
    result = demiglace.run({"pass": passes}, model=made("folded"), data=data, out=tmp_path / "run")
    cut, quantization, export = result.record.steps
    assert cut.verified["form"] == "graph"
    assert quantization.after.bits < 0.3 * quantization.before.bits
    assert quantization.after.macs == quantization.before.macs
    values = outputs(result.model, "folded")
    (file,) = (tmp_path / "run").rglob("*.dgz")
    assert export.figures["smaller_than_fp32"] > 1
    assert torch.equal(outputs(demiglace.load(file), "folded"), values)
    assert torch.equal(outputs(demiglace.load(tmp_path / "run"), "folded"), values)
    assert torch.equal(outputs(copy.deepcopy(result.model), "folded"), values)


def test_layers_that_cost_too_much_stay_floating_point_in_a_graph_too():
    graph = lowered(made("folded"), IMAGES)
    data = {"calibration": [(IMAGES,)], "validation": [(IMAGES[:16],), (IMAGES[16:],)]}
    options = {"use": "quantize.weight_only", "bits": 2, "max_drop": 0.2}
    result = demiglace.run({"pass": [options]}, model=graph, data=data, example_inputs=IMAGES[:2])
    figures = result.record.steps[0].figures
    assert figures["accuracy_drop"] <= 0.2
    assert figures["returned"]
    for name in figures["returned"]:
        assert isinstance(graph.get_submodule(name).weight, nn.Parameter)


def test_a_swap_in_a_graph_is_taken_back_whole():
    graph = lowered(made("folded"), IMAGES)
    before, text = outputs(graph, "folded"), to_json(graph)
    model = ModelGraph(graph, Example((IMAGES[:2],)))
    layer = next(one for one in select_layers(model.with_layers()).layers if one.name == "inner")
    swap = weight_only_swap(
        "inner", layer.module, {"weight": round_weight(layer.weights["weight"], Scheme(4))}
    )
    transaction = apply(model, [swap])
    assert not torch.equal(outputs(graph, "folded"), before)
    assert type(from_json(to_json(graph)).get_submodule("inner")).__name__ == "QuantizedLinear"
    transaction.rollback()
    assert type(graph) is PlainGraph
    assert to_json(graph) == text
    assert torch.equal(outputs(graph, "folded"), before)


def test_structures_of_a_graph_with_quantized_layers_are_not_cut():
    graph = lowered(made("folded"), IMAGES)
    quantized(graph, "folded", {"use": "quantize.weight_only", "targets": ["inner"]})
    model = ModelGraph(graph, Example((IMAGES[:2],)))
    with pytest.raises(GraphError, match=r"'inner' of the plain-data graph is 'quantized\.linear' now"):
        apply(model, [Cut("stem.weight", 0, (0, 1))])


def test_a_graph_file_with_a_swap_that_does_not_fit_is_damaged():
    graph = lowered(made("folded"), IMAGES)
    quantized(graph, "folded", PASSES["int8"])
    content = json.loads(to_json(graph))
    for change in ({"type": "os.system"}, {"options": []}, {"module": "nowhere"}, {"options": {}}):
        damaged = {**content, "swaps": [{**content["swaps"][0], **change}]}
        with pytest.raises(ArtifactError, match="does not hold a valid graph"):
            from_json(json.dumps(damaged))


def test_integers_are_not_trained_after_they_were_saved_either(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    batches = [(torch.randn(8, 16), torch.arange(8) % 4)]
    quantize = {"use": "quantize.weight_only", "bits": 4}
    demiglace.run({"pass": [quantize]}, model=module, data=batches, out=tmp_path / "run")
    opened = demiglace.load(tmp_path / "run")
    assert isinstance(opened, PlainGraph)
    train = {"pass": [{"use": "train.supervised", "epochs": 1}]}
    saved = {**train, "model": {"use": "artifact", "path": str(tmp_path / "run")}}
    for plan in (
        lambda: demiglace.plan(train, model=opened, data=batches),
        lambda: demiglace.plan(saved, data=batches),
    ):
        with pytest.raises(RecipeError, match=r"its weights are integers \(layer '0' and 1 more\)"):
            plan()
