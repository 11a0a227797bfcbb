"""`evaluate.latency`: what is measured, against what, and what is said of it; no time is judged."""

import itertools

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import RecipeError, UsageError
from demiglace.graph import ModelGraph
from demiglace.machine import compiler
from demiglace.measure import Timing, in_turn
from demiglace.passes import Context, Ran
from demiglace_evaluators._ran import multiplies, ran_eager
from demiglace_evaluators.latency import Latency, LatencyConfig

SHORT = {"use": "evaluate.latency", "seconds": 0.01, "rounds": 5, "batch_sizes": [1, 4]}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8)).eval()


def run(*passes, model=None, **options):
    example = torch.rand(2, 3, 8, 8)
    recipe = {"pass": [*passes, SHORT | options]}
    return demiglace.run(recipe, model=model or net(), example_inputs=example)


@pytest.mark.parametrize("evaluator", ["evaluate.latency", "evaluate.memory"])
def test_a_runtime_whose_files_cannot_hold_the_model_is_refused_before_anything_runs(evaluator):
    measured = {"use": evaluator, "id": "measured", "runtimes": ["eager", "openvino"]}
    steps = [{"use": "quantize.cast"}, measured]
    with pytest.raises(RecipeError, match=r"'measured' .* needs weights\.exchangeable, which step 'cast'"):
        demiglace.check({"pass": steps})
    demiglace.check({"pass": [steps[0] | {"dtype": "float16"}, measured]})
    demiglace.check({"pass": [steps[0], measured | {"runtimes": ["eager"]}]})


def test_each_runtime_and_batch_is_measured_against_fp32():
    step = run({"use": "quantize.dynamic"}).steps[-1]
    config = LatencyConfig(**{key: value for key, value in SHORT.items() if key != "use"})
    assert set(config.metrics()) <= set(step.metrics)
    assert [(row["runtime"], row["batch"]) for row in step.figures["latency"]] == [("eager", 1), ("eager", 4)]
    for row in step.figures["latency"]:
        place = f"{row['runtime']}_b{row['batch']}"
        assert row["model"]["low"] <= row["model"]["median"] <= row["model"]["high"]
        assert step.metrics[f"latency_{place}"].value == row["model"]["median"]
        assert step.metrics[f"speedup_{place}"].value == pytest.approx(
            row["eager_fp32"]["median"] / row["model"]["median"]
        )
        assert row["speedup"] == row["speedup_own"]  # in eager both are the same fp32


def test_what_was_pinned_is_recorded_and_put_back():
    before = torch.get_num_threads()
    step = run(threads=2).steps[-1]
    assert step.figures["settings"]["threads"] == 2
    assert step.figures["settings"]["precision"] == "fp32"
    assert torch.get_num_threads() == before


def test_the_reference_is_the_model_before_the_first_pass_in_float32(monkeypatch):
    from demiglace_evaluators import _runtimes

    seen, put_to_work = [], _runtimes.put_to_work

    def spied(runtime, model, *rest):
        seen.append(model.module)
        return put_to_work(runtime, model, *rest)

    monkeypatch.setattr(_runtimes, "put_to_work", spied)
    run({"use": "prune.channels", "amount": 0.5}, {"use": "quantize.weight_only"})
    model, reference = seen
    assert reference[0].weight.shape == (4, 3, 3, 3)
    assert reference[0].weight.dtype == torch.float32
    assert model[0].out_channels == 2


def test_a_model_that_came_quantized_is_compared_with_its_own_values_in_float32(tmp_path):
    quantized = demiglace.run({"pass": [{"use": "quantize.weight_only"}]}, model=net()).model
    from demiglace_evaluators._reference import in_floating_point

    context = Context(seed=0, device=torch.device("cpu"))
    model = ModelGraph(quantized, None)
    reference = in_floating_point(model, context).module
    assert type(reference[3]) is nn.Linear
    assert torch.equal(reference[3].weight, quantized[3].weight)
    inputs = torch.rand(2, 3, 8, 8)
    assert torch.allclose(reference(inputs), quantized(inputs), atol=1e-5)
    assert hasattr(quantized[3], "quantized_weights")


def test_layers_in_floating_point_are_free_to_be_fused_again():
    from demiglace.quantization import floating

    quantized = demiglace.run({"pass": [{"use": "quantize.dynamic"}]}, model=net()).model
    assert quantized[3]._forward_pre_hooks
    assert not floating(quantized)[3]._forward_pre_hooks


def test_integers_in_a_graph_are_compared_with_what_was_before_the_first_pass():
    steps = [{"use": "quantize.static"}, {"use": "quantize.edges"}, SHORT]
    result = demiglace.run({"pass": steps}, model=net(), data=[torch.rand(4, 3, 8, 8)])
    assert "speedup_eager_b1" in result.metrics
    assert not any("compared with nothing" in note for note in result.steps[-1].notes)


def test_it_tells_which_layers_multiply_integers():
    result = run({"use": "quantize.dynamic"})
    ran = {one["name"]: one["precision"] for one in result.steps[-1].figures["ran"]["eager"]}
    assert ran == {"0": "fp32", "3": "int8"}
    assert "eager computes 1 of 2 matrix products in int8" in result.steps[-1].notes


PRODUCTS = """
    QLinearConv FusedConv MatMulInteger QGemm DynamicQuantizeMatMul FullyConnected MatMul Convolution addmm
    _int_mm aten::mm baddbmm mv convolution onednn::qlinear_pointwise mkldnn::_linear_pointwise
    mkl::_mkl_linear MultiHeadAttention
"""
OTHERS = """
    QuantizeLinear DequantizeLinear QLinearAdd QLinearGlobalAveragePool Convert Const MVN Relu Eltwise
    Multiply Softmax add FakeQuantize Reorder
"""


@pytest.mark.parametrize("name", PRODUCTS.split())
def test_what_multiplies_matrices_is_known_by_name(name):
    assert multiplies(name)


@pytest.mark.parametrize("name", OTHERS.split())
def test_what_multiplies_none_is_not_counted(name):
    assert not multiplies(name)


def test_products_are_told_by_the_innermost_layer_and_hooks_go_again():
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train()
    ran = ran_eager(attention, lambda: attention(torch.rand(1, 3, 8)))
    assert {"linear1", "linear2"} <= {one.name for one in ran}
    hooks = [len(one._forward_pre_hooks) + len(one._forward_hooks) for one in attention.modules()]
    assert sum(hooks) == 0


def test_the_model_is_left_as_it_was():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model=model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_slow_model_is_warned_of(monkeypatch):
    from demiglace import measure

    def slow(calls, **_):
        return {key: Timing(2.0 if key[1] == "model" else 1.0, 1.0, 3.0, 1.0, 5, 1) for key in calls}

    monkeypatch.setattr(measure, "in_turn", slow)
    step = run().steps[-1]
    assert step.warnings == [
        "eager, batch 1: slower than floating point: 2.00 times the time of eager fp32",
        "eager, batch 4: slower than floating point: 2.00 times the time of eager fp32",
    ]


def test_readings_are_taken_in_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = in_turn(calls, rounds=7, seconds=100.0)
    assert [found[name].rounds for name in "ab"] == [7, 7]
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes >= 13


def test_a_gate_may_bound_it():
    recipe = {"pass": [SHORT], "gate": {"speedup_eager_b1": {"min": 1e9}}}
    result = demiglace.run(recipe, model=net(), example_inputs=torch.rand(2, 3, 8, 8))
    assert not result.passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtimes": ["eagre"]}, "eager"),
        ({"runtimes": []}, "not empty"),
        ({"batch_sizes": [0]}, "between 1 and"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(RecipeError, match=message):
        run(**options)


def test_without_a_compiler_inductor_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match='leave "inductor" out'):
        run({"use": "quantize.weight_only"}, runtimes=["eager", "inductor"])


def test_without_an_example_it_says_what_to_give():
    with pytest.raises(UsageError, match="example input"):
        demiglace.run({"pass": [SHORT]}, model=net())


def test_a_third_partys_runtime_runs_what_its_exporter_wrote(acme):
    step = run(
        {"use": "quantize.weight_only"},
        runtimes=["acme"],
        threads=1,
        runtime_options={"acme": {"fast": True}},
    )
    figures = step.steps[-1].figures
    assert acme.OPENED == [(1, "fp32", {"fast": True})] * 2  # the model and its fp32
    assert figures["ran"] == {"acme": [{"name": "all", "operator": "Everything", "precision": "int8"}]}
    assert {"latency_acme_b1", "speedup_own_acme_b4"} <= set(step.metrics)


def test_precision_is_that_of_the_model_alone(acme):
    run(runtimes=["acme"], precision="bf16")
    assert [precision for _, precision, _ in acme.OPENED] == ["bf16", "fp32"]


def test_a_precision_that_a_runtime_lacks_is_refused_before_anything_runs():
    with pytest.raises(RecipeError, match="'onnx' does not compute in bf16"):
        run({"use": "quantize.weight_only"}, runtimes=["eager", "onnx"], precision="bf16")


def test_options_of_a_runtime_that_is_not_asked_for_are_told(acme):
    with pytest.raises(RecipeError, match="none of the runtimes that take options"):
        run(runtimes=["eager"], runtime_options={"acme": {}})


def file_model():
    """A model as a runtime's module of an exported file is one."""
    model = net()
    model.ran = lambda: [Ran("all", "QLinearConv", "int8")]
    return model


def test_a_file_is_compared_with_nothing_unless_told():
    step = run(model=file_model(), batch_sizes=[1]).steps[-1]
    assert [name for name in step.metrics if "_b1" in name] == ["latency_eager_b1"]
    assert step.figures["ran"]["eager"][0]["operator"] == "QLinearConv"
    assert not step.warnings


def test_a_graph_that_came_with_integers_is_compared_with_nothing(tmp_path):
    steps = [{"use": "quantize.static"}, {"use": "quantize.edges"}]
    graph = demiglace.run({"pass": steps}, model=net(), data=[torch.rand(4, 3, 8, 8)]).model
    step = run(model=graph, batch_sizes=[1]).steps[-1]
    assert [name for name in step.metrics if "_b1" in name] == ["latency_eager_b1"]
    assert "compared with nothing" in step.notes[0]


def test_a_file_is_compared_with_a_saved_model(tmp_path):
    recipe = {"pass": [{"use": "quantize.weight_only"}]}
    demiglace.run(recipe, model=net(), example_inputs=torch.rand(2, 3, 8, 8), out=tmp_path / "run")
    step = run(model=file_model(), batch_sizes=[1], against=str(tmp_path / "run")).steps[-1]
    assert {"speedup_eager_b1", "speedup_own_eager_b1"} <= set(step.metrics)


def test_a_gate_on_a_comparison_with_nothing_is_one_error():
    recipe = {"pass": [SHORT], "gate": {"speedup_eager_b1": {"min": 1.0}}}
    with pytest.raises(UsageError, match="nothing to measure it by"):
        demiglace.run(recipe, model=file_model(), example_inputs=torch.rand(2, 3, 8, 8))


def test_a_file_runs_in_its_own_runtime_alone():
    with pytest.raises(RecipeError, match="runs in its own runtime"):
        run(model=file_model(), runtimes=["eager", "inductor"])


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_inductor_runs_beside_eager():
    step = run(runtimes=["eager", "inductor"], batch_sizes=[2]).steps[-1]
    assert {"latency_inductor_b2", "speedup_inductor_b2", "speedup_own_inductor_b2"} <= set(step.metrics)
    assert step.figures["ran"]["inductor"]


def test_its_options_need_no_torch():
    from demiglace.testing.fresh import imports_torch

    assert not imports_torch(LatencyConfig.__module__)
    assert Latency(LatencyConfig()).config.rounds == 30


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_runtime_of_files_tells_that_it_multiplies_integers(runtime):
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    steps = [{"use": "quantize.static"}, SHORT | {"runtimes": [runtime], "batch_sizes": [3]}]
    result = demiglace.run({"pass": steps}, model=net(), data=[torch.rand(16, 3, 8, 8)])
    step = result.steps[-1]
    assert {f"latency_{runtime}_b3", f"speedup_{runtime}_b3", f"speedup_own_{runtime}_b3"} <= set(
        step.metrics
    )
    assert f"{runtime} computes 2 of 2 matrix products in int8" in step.notes
