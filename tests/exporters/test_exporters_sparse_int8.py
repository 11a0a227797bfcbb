"""`deploy.sparse_int8`: integer layers without their zeros give the same numbers; no time is judged."""

from __future__ import annotations

import copy
import pickle
import re
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import demiglace
from demiglace.errors import PassFailed, RecipeError
from demiglace.graph import Example, ModelGraph, apply
from demiglace.measure import Timing, measure
from demiglace.quantization import without_zeros_problem, zero_free, zero_free_swap
from demiglace.quantization.modules.zero_free import LeavesOutZeros
from demiglace.testing import EditorConformance
from demiglace_exporters.sparse_int8 import SPEC, SparseInt8Config

pytestmark = pytest.mark.needs_no_runtime
needs_the_processor = pytest.mark.skipif(
    without_zeros_problem() is not None, reason=f"no zeros are left out here: {without_zeros_problem()}"
)

PRUNE = {"use": "prune.magnitude", "amount": 0.9, "scope": "layer", "targets": ["0", "2"]}
DYNAMIC, STATIC = {"use": "quantize.dynamic"}, {"use": "quantize.static"}
ALWAYS = {"use": "deploy.sparse_int8", "min_speedup": 0.0}


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16, bias=False), nn.Linear(16, 6))


def run(*passes, model=None, **given):
    torch.manual_seed(0)
    data = {"calibration": [torch.randn(8, 24)]}
    return demiglace.run({"pass": list(passes)}, model=model or small(), data=data, **given)


def integers(rows, columns, way, *, zeros=0.8, bias=True):
    """A linear layer with zeros, as integers, and the same that leaves them out."""
    layer = nn.Linear(columns, rows, bias=bias).eval()
    with torch.no_grad():
        layer.weight[torch.rand(rows, columns) < zeros] = 0
    model = nn.Sequential(layer)
    data = {"calibration": [torch.randn(16, columns)]}
    demiglace.run({"pass": [way]}, model=model, data=data)
    fast = copy.deepcopy(model)
    apply(ModelGraph(fast), [zero_free_swap("0")]).commit()
    return model, fast


@needs_the_processor
class TestConformance(EditorConformance):
    spec = SPEC
    config = SparseInt8Config(min_speedup=0.0, min_sparsity=0.5)
    input_shape: ClassVar[tuple[int, ...]] = (3, 24)

    @staticmethod
    def module() -> nn.Module:
        model = small()
        recipe = {"pass": [{**PRUNE, "targets": ["*"]}, {"use": "prune.finalize"}, DYNAMIC]}
        demiglace.run(recipe, model=model.eval())
        return model


@needs_the_processor
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 50),
    columns=st.integers(1, 300),
    batch=st.integers(0, 19),
    zeros=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    bias=st.booleans(),
    way=st.sampled_from([DYNAMIC, {**DYNAMIC, "granularity": "tensor"}, STATIC]),
)
def test_the_numbers_are_those_of_the_integer_layer(rows, columns, batch, zeros, bias, way):
    torch.manual_seed(rows * 100 + columns)
    model, fast = integers(rows, columns, way, zeros=zeros, bias=bias)
    inputs = 3 * torch.randn(batch, columns)
    with torch.inference_mode():
        assert torch.equal(fast(inputs), model(inputs))


@needs_the_processor
def test_other_shapes_dtypes_and_strange_rows_come_out_as_before():
    model, fast = integers(40, 24, DYNAMIC)
    strange = torch.randn(5, 24)
    strange[0], strange[1, 3], strange[2] = 0, torch.nan, -strange[2].abs()
    for inputs in (strange, torch.randn(24), torch.randn(2, 3, 24), torch.randn(24, 5).t()):
        assert torch.equal(fast(inputs).nan_to_num(7), model(inputs).nan_to_num(7))
    assert fast(strange)[1].isnan().all()
    double, again = model.double(), fast.double()
    assert torch.allclose(again(strange.double()[2:]), double(strange.double()[2:]), rtol=1e-5)


@needs_the_processor
def test_inputs_of_another_width_are_refused_as_before():
    model, fast = integers(40, 24, DYNAMIC)
    for width in (12, 23, 48):
        with pytest.raises(RuntimeError) as expected:
            model(torch.randn(2, width))
        with pytest.raises(RuntimeError, match=re.escape(str(expected.value))):
            fast(torch.randn(2, width))


@needs_the_processor
@pytest.mark.parametrize("rows", [4, 20])
def test_several_threads_give_the_same(monkeypatch, rows):
    monkeypatch.setattr(zero_free, "_ALONE", 0)
    model, fast = integers(400, 64, DYNAMIC)
    inputs, before = torch.randn(rows, 64), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(fast(inputs), model(inputs))
    finally:
        torch.set_num_threads(before)


@needs_the_processor
def test_a_changed_tensor_is_noticed():
    model, fast = integers(40, 24, STATIC)
    inputs = torch.randn(3, 24)
    fast(inputs)
    for one in (model, fast):
        one[0].weight_codes[:, :12] = 3
        one[0].weight_sums.copy_(one[0].quantized("weight").integers.sum(1))
        one[0].input_scale.mul_(2)
        one[0].bias.data.mul_(2)
        one[0].bias.data.add_(1)
    assert torch.equal(fast(inputs), model(inputs))


@needs_the_processor
def test_copies_of_all_kinds_compute():
    _, fast = integers(40, 24, DYNAMIC)
    inputs = torch.randn(3, 24)
    expected = fast(inputs)
    assert torch.equal(copy.deepcopy(fast)(inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(fast))(inputs), expected)
    assert torch.equal(torch.compile(fast, backend="eager")(inputs), expected)


def test_where_the_processor_cannot_do_it_the_layer_computes_as_before(monkeypatch):
    model, fast = integers(40, 24, DYNAMIC)
    monkeypatch.setattr("demiglace.quantization.modules.zero_free.without_zeros_problem", lambda: "no one")
    called = []
    monkeypatch.setattr(torch.ops.demiglace, "zero_free_linear", lambda *_: called.append(1))
    inputs = torch.randn(3, 24)
    with pytest.warns(UserWarning, match="compute with their zeros here: no one"):
        found = fast(inputs)
    assert torch.equal(found, model(inputs))
    assert not called


@needs_the_processor
def test_a_run_keeps_its_tensors_and_opens_again(tmp_path):
    result = run(PRUNE, STATIC, ALWAYS, {"use": "export.packed"}, out=tmp_path / "run")
    assert [isinstance(one, LeavesOutZeros) for one in result.model] == [True, False, True, False]
    assert result.steps[2].after.bytes == result.steps[1].after.bytes
    assert result.steps[2].after.zeros == result.steps[1].after.zeros
    inputs = torch.randn(3, 24)
    file = tmp_path / "run" / "steps" / "04-packed" / "model.dgz"
    for place in (tmp_path / "run", file):
        opened = demiglace.load(place, model=small)
        assert isinstance(opened[0], LeavesOutZeros)
        assert torch.equal(opened(inputs), result.model(inputs))
    graph = demiglace.load(tmp_path / "run")  # without the class: what was traced is the integer layer
    assert torch.equal(graph(inputs), result.model(inputs))


@needs_the_processor
def test_evaluators_see_integers_and_all_multiplications():
    latency = {"use": "evaluate.latency", "batch_sizes": [1], "seconds": 0.01, "rounds": 5}
    result = run(PRUNE, DYNAMIC, ALWAYS, latency)
    ran = result.steps[3].figures["ran"]["eager"]
    assert [(one["name"], one["precision"]) for one in ran] == [("0", "int8"), ("2", "int8"), ("3", "int8")]
    assert "zero_free_linear" in {one["operator"] for one in ran}
    dense = 24 * 40 + 40 * 16 + 16 * 6
    assert measure(result.graph, Example((torch.randn(1, 24),))).macs == dense


@needs_the_processor
def test_layers_are_told_apart(monkeypatch):
    def in_turn(calls, **_):
        assert torch.equal(calls["dense"](), calls["sparse"]())
        return {"dense": Timing(3, 3, 3, 3, 5, 1), "sparse": Timing(2, 2, 2, 2, 5, 1)}

    monkeypatch.setattr("demiglace.measure.in_turn", in_turn)
    result = run(PRUNE, DYNAMIC, {**ALWAYS, "min_speedup": 1.4, "batch_size": 3})
    figures = result.steps[2].figures["layers"]
    assert [(one["layer"], one["input"], one["speedup"]) for one in figures] == [
        ("0", [3, 24], 1.5),
        ("2", [3, 40], 1.5),
    ]
    assert result.steps[2].left_alone["3"].startswith("only ")
    with pytest.raises(PassFailed, match=r"without its zeros 1\.50 times as fast"):
        run(PRUNE, DYNAMIC, {**ALWAYS, "min_speedup": 1.6})


def test_a_machine_that_cannot_do_it_is_told_and_may_go_on(monkeypatch):
    problem = "the processor has no byte permutation"
    monkeypatch.setattr("demiglace.quantization.without_zeros_problem", lambda: problem)
    with pytest.raises(PassFailed, match=problem):
        run(PRUNE, DYNAMIC, ALWAYS)
    result = run(PRUNE, DYNAMIC, {**ALWAYS, "allow_noop": True})
    assert result.steps[2].left_alone["0"] == problem


def test_layers_that_compute_in_floating_point_are_refused():
    with pytest.raises(RecipeError, match=r"needs products\.int8, which nothing before it gives"):
        demiglace.check({"pass": [PRUNE, {"use": "quantize.weight_only"}, ALWAYS]})
    with pytest.raises(RecipeError, match=r"needs model\.trainable"):
        demiglace.check({"pass": [DYNAMIC, ALWAYS, {"use": "train.supervised", "epochs": 1}]})
    with pytest.raises(demiglace.DemiglaceError, match=r"no linear layer of integers .* has 70% of zeros"):
        run(DYNAMIC, ALWAYS)
