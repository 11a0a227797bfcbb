"""`deploy.sparse`: layers without their zeros compute, weigh, save and load as before; no time is judged."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import GraphError, RecipeError
from demiglace.graph import Example, Lower, Mask, ModelGraph, apply
from demiglace.graph.plain import PlainGraph
from demiglace.measure import Timing, measure
from demiglace.quantization import SparseLinear
from demiglace.testing import EditorConformance
from demiglace_exporters import sparse
from demiglace_exporters.sparse import SPEC, SparseConfig

pytestmark = pytest.mark.needs_no_runtime

PRUNE = {"use": "prune.magnitude", "amount": 0.9, "scope": "layer", "targets": ["0", "2"]}
ALWAYS = {"use": "deploy.sparse", "min_speedup": 0.0}


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16, bias=False), nn.Linear(16, 6))


class TestConformance(EditorConformance):
    spec = SPEC
    config = SparseConfig(min_speedup=0.0)
    input_shape: ClassVar[tuple[int, ...]] = (3, 24)

    @staticmethod
    def module() -> nn.Module:
        return small()

    def model(self) -> ModelGraph:
        model = super().model()
        with torch.no_grad():
            for layer in (model.module[0], model.module[2]):
                layer.weight[
                    torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(2)) < 0.9
                ] = 0
        return model


def run(*passes, model=None, inputs=None, **given):
    torch.manual_seed(0)
    inputs = torch.randn(4, 24) if inputs is None else inputs
    return demiglace.run({"pass": list(passes)}, model=model or small(), example_inputs=inputs, **given)


def test_it_computes_the_same_in_every_shape_of_input():
    torch.manual_seed(0)
    model = small()
    pruned = run(PRUNE, model=model)
    inputs = [torch.randn(24), torch.randn(5, 24), torch.randn(2, 3, 24), torch.randn(0, 24)]
    before = [pruned.model(one) for one in inputs]
    made = run(ALWAYS, model=model)
    assert [type(one) for one in made.model] == [SparseLinear, nn.ReLU, SparseLinear, nn.Linear]
    for one, expected in zip(inputs, before, strict=True):
        assert torch.allclose(made.model(one), expected, atol=1e-6)


def test_masked_weights_are_gone_and_the_mask_with_them():
    result = run(PRUNE, ALWAYS)
    assert result.graph.masks == {}
    assert result.model[0].sparse_weight.zeros() == round(0.9 * 24 * 40)
    assert len(result.model[0].weight_values) == 24 * 40 - round(0.9 * 24 * 40)


def test_it_counts_as_before_and_takes_eight_bytes_a_nonzero():
    dense, made = run(PRUNE), run(PRUNE, ALWAYS)
    before, after = dense.steps[-1].after, made.steps[-1].after
    assert (after.parameters, after.zeros) == (before.parameters, before.zeros)
    assert set(after.pruned) == set(before.pruned) == {"0.weight", "2.weight"}
    layer = after.layers["0.weight"]
    assert layer.parameters == 24 * 40
    assert layer.bits == 8 * (8 * (layer.parameters - layer.zeros) + 4 * 41)


def test_evaluators_and_the_packed_file_take_it(tmp_path):
    result = run(PRUNE, ALWAYS, {"use": "evaluate.sparsity"}, {"use": "export.packed"}, out=tmp_path / "run")
    assert result.metrics["sparsity.0.weight"] == pytest.approx(0.9)
    file = tmp_path / "run" / "steps" / "04-packed" / "model.dgz"
    inputs = torch.randn(3, 24)
    assert torch.equal(demiglace.load(file, model=small)(inputs), result.model(inputs))


def test_layers_of_a_plain_data_graph_are_swapped_too(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(4, 24)
    graph = ModelGraph(small().eval(), Example((inputs,)))
    apply(graph, [Lower()]).commit()
    result = run(PRUNE, ALWAYS, model=graph.module, inputs=inputs, out=tmp_path / "run")
    assert result.steps[1].edits == {"Swap": 2}
    assert result.steps[1].after.layers["0.weight"].zeros == round(0.9 * 24 * 40)
    assert torch.allclose(result.model(inputs), demiglace.load(tmp_path / "run")(inputs))


def test_a_model_of_a_callers_class_opens_without_it_as_a_graph(tmp_path):
    result = run(PRUNE, ALWAYS, {"use": "export.torch", "compile": False}, out=tmp_path / "run")
    graph = demiglace.load(tmp_path / "run")
    assert isinstance(graph, PlainGraph)
    inputs = torch.randn(3, 24)
    assert torch.equal(graph(inputs), result.model(inputs))
    found = measure(ModelGraph(graph), Example((inputs,)))
    before = measure(result.graph, Example((inputs,)))
    assert (found.layers["0.weight"].zeros, found.macs) == (before.layers["0.weight"].zeros, before.macs)
    assert before.macs == 3 * (24 * 40 + 40 * 16 + 16 * 6)  # of the shapes: zeros count


def test_code_that_reads_the_weight_finds_a_matrix():
    result = run(PRUNE, ALWAYS)
    weight = result.model[0].weight
    assert weight.shape == (40, 24)
    assert int((weight == 0).sum()) == round(0.9 * 24 * 40)
    assert isinstance(result.model[0], nn.Linear)


def test_it_moves_to_another_dtype_and_back():
    model = run(PRUNE, ALWAYS).model
    inputs = torch.randn(3, 24)
    before = model(inputs)
    assert torch.allclose(model.double()(inputs.double()).float(), before, atol=1e-6)


def timed(monkeypatch, speedup):
    def in_turn(calls, **_):
        dense = Timing(speedup, speedup, speedup, speedup, 5, 1)
        return {"dense": dense, "sparse": Timing(1.0, 1.0, 1.0, 1.0, 5, 1)}

    monkeypatch.setattr("demiglace.measure.in_turn", in_turn)


def test_only_layers_that_gain_are_swapped(monkeypatch):
    timed(monkeypatch, 0.9)
    step = {**ALWAYS, "min_speedup": 1.1, "min_sparsity": 0.5}
    with pytest.raises(demiglace.DemiglaceError, match=r"without its zeros 0\.90 times as fast"):
        run(PRUNE, step)
    timed(monkeypatch, 1.2)
    result = run(PRUNE, step)
    assert isinstance(result.model[0], SparseLinear)
    assert [one["speedup"] for one in result.steps[1].figures["layers"]] == [1.2, 1.2]
    assert result.steps[1].left_alone == {"3": "only 0.0% of its weights are zero"}


def test_layers_are_timed_at_the_size_that_they_get():
    tokens = nn.Sequential(nn.Embedding(10, 24), small())
    prune = {**PRUNE, "targets": ["1.0", "1.2"]}
    step = {"use": "deploy.sparse", "batch_size": 3, "min_speedup": 0.01}
    result = run(prune, step, model=tokens, inputs=torch.randint(0, 10, (2, 7)))
    figures = {one["layer"]: one["input"] for one in result.steps[1].figures["layers"]}
    assert figures == {"1.0": [3, 7, 24], "1.2": [3, 7, 40]}
    assert all(one["dense_seconds"] > 0 for one in result.steps[1].figures["layers"])


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 16)

    def forward(self, x):
        return self.fc(input=x)


def test_a_layer_that_is_called_by_keyword_is_timed_too():
    step = run({**PRUNE, "targets": ["fc"]}, {**ALWAYS, "min_speedup": 1e-6}, model=ByKeyword()).steps[1]
    assert [one["input"] for one in step.figures["layers"]] == [[1, 24]]


def test_a_layer_that_is_never_called_stays():
    model = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True).eval()
    prune = {**PRUNE, "targets": ["type:Linear"]}
    inputs = torch.randn(2, 5, 24)
    result = run(prune, ALWAYS, model=model, inputs=inputs)
    assert result.steps[1].left_alone["self_attn.out_proj"] == "the model does not call it"
    assert isinstance(model.linear1, SparseLinear)
    expected = nn.functional.linear(inputs, model.linear1.weight, model.linear1.bias)
    assert torch.allclose(model.linear1(inputs), expected, atol=1e-6)


def test_the_fused_path_of_encoders_calls_sparse_layers_instead_of_reading_them(monkeypatch):
    model = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True).eval()
    inputs = torch.randn(2, 5, 24)
    run({**PRUNE, "targets": ["type:Linear"]}, ALWAYS, model=model, inputs=inputs)
    called, forward = [], SparseLinear.forward
    monkeypatch.setattr(
        SparseLinear, "forward", lambda self, given: called.append(self) or forward(self, given)
    )
    with torch.no_grad():
        model(inputs)
    assert called == [model.linear1, model.linear2]


def test_a_shared_weight_stays_dense():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 4))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[:, 2:] = 0
        model[2].weight[:, 2:] = 0
    result = run(ALWAYS, model=model)
    assert "share its weight" in result.steps[0].left_alone["0"]
    assert isinstance(result.model[2], SparseLinear)


def test_dense_layers_and_networks_without_linear_layers_are_told():
    with pytest.raises(GraphError, match="no linear layer that is selected has 70% of zeros"):
        run(ALWAYS)
    with pytest.raises(RecipeError, match="select no linear layer"):
        run(
            {**ALWAYS, "targets": ["0"]},
            model=nn.Sequential(nn.Conv1d(24, 4, 1)),
            inputs=torch.randn(2, 24, 3),
        )


def test_it_cannot_be_trained_any_more(tmp_path):
    run(PRUNE, ALWAYS, out=tmp_path / "run")
    model = demiglace.load(tmp_path / "run", model=small)
    data = [(torch.randn(4, 24), torch.zeros(4).long())]
    with pytest.raises(RecipeError, match="holds only the weights that are not zero"):
        demiglace.run({"pass": [{"use": "train.supervised", "epochs": 1}]}, model=model, data=data)
    with pytest.raises(RecipeError, match=r"needs model\.trainable"):
        demiglace.check({"pass": [PRUNE, ALWAYS, {"use": "train.supervised", "epochs": 1}]})


def test_a_quantizer_after_it_leaves_it_alone():
    result = run(PRUNE, ALWAYS, {"use": "quantize.weight_only"})
    assert isinstance(result.model[0], SparseLinear)
    assert set(result.steps[2].left_alone) == {"0", "2"}


def test_masks_that_were_not_written_yet_count():
    torch.manual_seed(0)
    model = ModelGraph(small(), Example((torch.randn(2, 24),)))
    keep = torch.zeros(40, 24, dtype=torch.bool)
    keep[:, 0] = True
    apply(model, [Mask("0.weight", keep)])
    [weight] = list(model.weights(["0"]))
    assert int(sparse._as_it_acts(weight).count_nonzero()) == 40
    assert measure(model).layers["0.weight"].zeros == 40 * 23
