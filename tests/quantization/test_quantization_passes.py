"""Quantizers through the engine: on modules that a caller hands in, saved, and opened again."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import DemiglaceError, GraphError, RecipeError


class Mixed(nn.Module):
    """An embedding, attention, convolutions in both directions, a tied head, and a norm."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(60, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.conv, self.up = nn.Conv1d(32, 16, 3), nn.ConvTranspose1d(16, 32, 3)
        self.head = nn.Linear(32, 60)
        self.head.weight = self.words.weight

    def forward(self, ids):
        x = self.block(self.words(ids))
        return self.head(self.up(self.conv(x.transpose(1, 2)).relu()).transpose(1, 2))


class Perceptron(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def _made(kind):
    torch.manual_seed(0)
    return kind().eval()


IDS = torch.arange(64).view(4, 16) % 60


def _quantize(module, example, out=None, data=None, **options):
    options.setdefault("use", "quantize.weight_only")
    recipe = {"name": "q", "pass": [options]}
    return demiglace.run(recipe, model=module, data=data, example_inputs=example, out=out)


def _outputs(module, example):
    with torch.no_grad():
        return module(example)


def _cosine(a, b):
    return float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


PASSES = [
    {"bits": 8},
    {"bits": 6, "symmetric": True},
    {"bits": 4, "group_size": 16, "clip": False},
    {"bits": 3},
    {"use": "quantize.dynamic"},
    {"use": "quantize.dynamic", "granularity": "tensor"},
    {"use": "quantize.cast"},
    {"use": "quantize.cast", "dtype": "float16"},
]


def test_quantized_models_open_in_another_process_and_compute_the_same(tmp_path):
    before = _outputs(_made(Mixed), IDS)
    expected = []
    for number, options in enumerate(PASSES):
        result = _quantize(_made(Mixed), IDS, tmp_path / str(number), **options)
        after = _outputs(result.model, IDS)
        assert _cosine(before, after) > (0.95 if options.get("bits") == 3 else 0.99), options
        assert not torch.equal(before, after), options
        expected.append(after)
    script = f"""
        import sys, torch
        sys.path.insert(0, {str(tmp_path)!r})
        import demiglace
        from mixed import Mixed
        outputs = []
        for number in range({len(PASSES)}):
            module = demiglace.load({str(tmp_path)!r} + f"/{{number}}", model=Mixed)
            assert "weight" not in module.conv._parameters or module.conv.weight.dtype != torch.float32
            with torch.no_grad():
                outputs.append(module(torch.arange(64).view(4, 16) % 60))
        torch.save(outputs, {str(tmp_path / "out.pt")!r})
    """
    source = "from torch import nn\n" + textwrap.dedent(_source_of(Mixed))
    (tmp_path / "mixed.py").write_text(source)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert [torch.equal(*pair) for pair in zip(expected, found, strict=True)] == [True] * len(PASSES)


def _source_of(kind):
    import inspect

    return inspect.getsource(kind)


@pytest.mark.parametrize(("options", "share"), [({"bits": 8}, 0.32), ({"bits": 4}, 0.2), ({"bits": 2}, 0.14)])
def test_the_file_and_the_footprint_shrink_by_the_bits_and_count_every_weight(options, share, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))
    result = _quantize(module, torch.randn(2, 256), tmp_path / "run", **options)
    step = result.record.steps[0]
    assert step.after.parameters == step.before.parameters
    assert step.after.macs == step.before.macs
    assert step.after.bits < share * step.before.bits
    files = sum(file.stat().st_size for file in (tmp_path / "run" / "model").iterdir())
    assert files < share * step.before.bytes + 4096
    assert step.after.bytes < share * step.before.bytes


def test_a_weight_that_layers_share_is_stored_once_and_stays_shared(tmp_path):
    module = _made(Mixed)
    result = _quantize(module, IDS, tmp_path / "run", bits=8)
    quantized = result.model
    assert quantized.words.weight_codes.data_ptr() == quantized.head.weight_codes.data_ptr()
    loaded = demiglace.load(tmp_path / "run", model=Mixed)
    assert loaded.words.weight_codes.data_ptr() == loaded.head.weight_codes.data_ptr()


def test_a_shared_weight_stays_floating_point_when_only_one_of_its_layers_is_chosen():
    module = _made(Mixed)
    result = _quantize(module, IDS, ignore=["words"])
    assert "shares its weight with 'words.weight'" in result.record.steps[0].left_alone["head"]
    assert module.head.weight is module.words.weight
    assert module.head.weight.dtype == torch.float32


def test_attention_computes_the_same_whether_its_weights_are_read_or_its_layers_called():
    module = _made(Mixed)
    _quantize(module, IDS, bits=8)
    fused = _outputs(module, IDS)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        plain = _outputs(module, IDS)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_a_dynamic_layer_multiplies_integers_and_does_not_mix_rows():
    module = _made(Perceptron)
    values = torch.randn(6, 20)
    values[3] *= 1000
    result = _quantize(module, values, use="quantize.dynamic")
    assert result.record.steps[0].figures["integer_layers"] == ["0", "2", "4"]
    together = _outputs(module, values)
    for row in range(6):
        torch.testing.assert_close(together[row], _outputs(module, values[row]), rtol=1e-5, atol=1e-6)


def test_figures_of_every_weight_come_worst_first_with_dead_channels():
    module = _made(Perceptron)
    module[2].weight.data[:7] = 0
    step = _quantize(module, torch.randn(2, 20), bits=4).record.steps[0]
    rows = step.figures["quantized"]
    assert [row["weight"] for row in rows] != []
    assert [row["sqnr"] for row in rows] == sorted(row["sqnr"] for row in rows)
    assert {row["weight"]: row["dead_channels"] for row in rows} == {
        "0.weight": 0,
        "2.weight": 7,
        "4.weight": 0,
    }
    assert torch.isfinite(_outputs(module, torch.randn(2, 20))).all()


def test_zeros_of_a_pruned_model_stay_zeros():
    module = _made(Perceptron)
    recipe = {
        "name": "q",
        "pass": [{"use": "prune.magnitude", "amount": 0.8}, {"use": "quantize.weight_only", "bits": 4}],
    }
    result = demiglace.run(recipe, model=module, example_inputs=torch.randn(2, 20))
    pruned, quantized = (step.after for step in result.record.steps)
    assert quantized.zeros >= pruned.zeros > 0
    assert result.graph.masks == {}


def test_groups_that_do_not_fit_are_named_with_those_that_do():
    module = _made(Perceptron)
    step = _quantize(module, torch.randn(2, 20), bits=4, group_size=32).record.steps[0]
    assert step.left_alone == {"0": "groups of 32 do not divide its rows of 20; 10, 20 do"}
    assert isinstance(module[0], nn.Linear)
    with pytest.raises(DemiglaceError, match="10, 20 do"):
        _quantize(_made(Perceptron), torch.randn(2, 20), bits=4, group_size=7)


def test_a_model_without_a_layer_that_can_hold_integers_is_refused():
    with pytest.raises(RecipeError, match=r"no layer that can be quantized .* no integer form of LSTM"):
        _quantize(nn.Sequential(nn.LSTM(8, 8)), torch.randn(2, 8), bits=8)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(poison):
    module = _made(Perceptron)
    module[2].weight.data[0, 0] = poison
    with pytest.raises(DemiglaceError, match=r"2\.weight"):
        _quantize(module, torch.randn(2, 20), bits=8)


def test_quantizing_twice_and_training_afterwards_are_refused_before_anything_runs():
    for later in ({"use": "quantize.dynamic"}, {"use": "train.supervised", "epochs": 1}):
        recipe = {"name": "q", "pass": [{"use": "quantize.weight_only"}, later]}
        with pytest.raises(RecipeError, match=r"quantize\.weight_only"):
            demiglace.check(recipe)


def test_parts_of_a_model_may_have_different_bits():
    module = _made(Perceptron)
    recipe = {
        "name": "q",
        "pass": [
            {"use": "quantize.weight_only", "bits": 4, "targets": ["0"]},
            {"use": "quantize.weight_only", "bits": 8, "targets": ["2", "4"]},
        ],
    }
    demiglace.run(recipe, model=module, example_inputs=torch.randn(2, 20))
    bits = [one.quantized("weight").scheme.bits for one in (module[0], module[2], module[4])]
    assert bits == [4, 8, 8]


def test_a_failed_quantizer_leaves_the_model_as_it_was():
    module = _made(Perceptron)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module[4].weight.data[0, 0] = float("nan")
    with pytest.raises(DemiglaceError):
        _quantize(module, torch.randn(2, 20), bits=8)
    assert list(module.state_dict()) == list(before)
    assert isinstance(module[0], nn.Linear)


def test_a_cast_model_takes_and_gives_the_old_dtype_and_halves_its_bytes():
    module = _made(Perceptron)
    result = _quantize(module, torch.randn(2, 20), use="quantize.cast")
    step = result.record.steps[0]
    assert _outputs(module, torch.randn(2, 20)).dtype == torch.float32
    assert module[0].weight.dtype == torch.bfloat16
    assert step.after.bytes * 2 == step.before.bytes
    assert step.figures["outputs"][0]["cosine"] > 0.999


def test_a_weight_beyond_float16_is_refused_with_what_to_do():
    module = _made(Perceptron)
    module[0].weight.data[0, 0] = 1e5
    with pytest.raises(GraphError, match="bfloat16"):
        _quantize(module, torch.randn(2, 20), use="quantize.cast", dtype="float16")


def _calibrating(count=4, size=16):
    torch.manual_seed(1)
    base = torch.randn(20, 20)
    return [torch.randn(size, 20) @ base for _ in range(count)]


@pytest.mark.parametrize("groups", [None, 4])
def test_gptq_beats_rounding_on_the_layers_outputs(groups):
    data = _calibrating()
    example = torch.cat(data)
    errors = {}
    for method in ("rtn", "gptq"):
        module = _made(Perceptron)
        before = _outputs(module, example)
        _quantize(module, example, data=data, bits=3, method=method, group_size=groups)
        errors[method] = float((_outputs(module, example) - before).square().mean())
    assert errors["gptq"] < 0.6 * errors["rtn"]


def test_gptq_survives_dead_inputs_and_convolutions_in_groups():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 3, groups=2)
    )
    module[0].weight.data[3] = 0
    module[0].bias.data[3] = 0
    data = [torch.randn(4, 4, 8, 8) for _ in range(3)]
    for batch in data:
        batch[:, 1] = 0
        batch[:, 2] = 5
    before = _outputs(module, data[0])
    _quantize(module, data[0], data=data, bits=4, method="gptq")
    after = _outputs(module, data[0])
    assert after.isfinite().all()
    assert _cosine(before, after) > 0.98


def test_calibration_data_that_is_missing_or_spoilt_is_refused():
    with pytest.raises(RecipeError, match="calibration"):
        _quantize(_made(Perceptron), torch.randn(2, 20), bits=4, method="gptq")
    spoilt = _calibrating()
    spoilt[1][0, 0] = float("nan")
    with pytest.raises(GraphError, match="NaN"):
        _quantize(_made(Perceptron), torch.randn(2, 20), data=spoilt, bits=4, method="gptq")
    with pytest.raises(DemiglaceError, match=r"\[3, 7\]"):
        _quantize(_made(Perceptron), torch.randn(2, 20), data=[torch.randn(3, 7)], bits=4, method="gptq")


@pytest.mark.parametrize("options", [one for one in PASSES if one.get("use") != "quantize.cast"])
def test_a_quantized_model_of_a_caller_opens_as_its_graph_at_any_batch_size(options, tmp_path):
    module = _made(Mixed)
    _quantize(module, IDS, tmp_path / "run", **options)
    graph = demiglace.load(tmp_path / "run")
    for size in (1, 4, 7):
        ids = IDS[:1].expand(size, -1).contiguous()
        torch.testing.assert_close(_outputs(graph, ids), _outputs(module, ids), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("use", ["quantize.dynamic", "quantize.static"])
def test_fused_encoders_of_torch_call_integer_layers_and_do_not_read_their_weights(use):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    module = nn.TransformerEncoder(layer, 2).eval()
    values, padding = torch.randn(3, 5, 16), torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    before = _outputs(module, values)
    _quantize(module, values, data=[values], use=use)
    calls = []
    inner = module.layers[0].linear1
    original = type(inner).linear
    type(inner).linear = lambda self, *args: calls.append(self) or original(self, *args)
    try:
        after = _outputs(module, values)
        assert inner in calls
        with torch.no_grad():
            padded = module(values, src_key_padding_mask=padding)
    finally:
        type(inner).linear = original
    assert _cosine(before, after) > 0.99
    torch.testing.assert_close(padded[1:], after[1:], rtol=0.1, atol=0.05)
