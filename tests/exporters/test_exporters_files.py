"""`export.onnx` and `export.openvino`: files that compute what PyTorch does, on integers, and small."""

import json
import sys
from functools import cache

import onnx_ir
import pytest
import torch
from exported_nets import EDGES, STATIC, TABLES, Kinds, Net, Text, made
from torch import nn

import demiglace
from demiglace.data import Data, DatasetSplit, build_transform
from demiglace.errors import DemiglaceError, GraphError, RecipeError, UsageError
from demiglace.plugins import discover

FORMATS = ["onnx", "openvino"]
IDS = torch.randint(0, 50, (24, 6), generator=torch.Generator().manual_seed(0))


def exported(folder, steps, to, module, *, data=None, example=None, **options):
    """The result of a run that ends with an export, its figures, and the file as a module."""
    recipe = {"pass": [*steps, {"use": f"export.{to}", "id": "file", **options}]}
    result = demiglace.run(recipe, model=module, data=data, example_inputs=example, out=folder / "run")
    figures = result.record.steps[-1].figures
    path = folder / "run" / "steps" / f"{len(steps) + 1:02d}-file" / figures["file"]
    return result, figures, path, discover().open_file(to, path, threads=1)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def integer_net(images, tmp_path_factory):
    """A function from a format to the folder of a run, and what `exported` gives of a network on integers."""

    @cache
    def of(to):
        folder = tmp_path_factory.mktemp(to)
        return folder, *exported(folder, EDGES, to, made(Net), data=images)

    return of


def test_every_layer_between_two_integers_is_fused(integer_net, images):
    folder, result, figures, _, file = integer_net("onnx")
    assert figures["difference"] < 0.02
    ran = {one.operator: one.precision for one in file.ran()}
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= set(ran)
    assert not {"Conv", "FusedConv", "Add", "Gemm", "Relu", "Clip"} & set(ran)
    x = next(images.evaluate("test")).args[0]
    for size in (1, 3):
        assert relative(file(x[:size]), result.model(x[:size])) < 0.05
    assert json.loads((folder / "run" / "run.json").read_text())["steps"][-1]["figures"] == figures


def test_uneven_zeros_become_the_convolutions_own_and_nothing_is_rounded_twice(tmp_path, images):
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.ReLU6(),
        nn.ZeroPad2d((0, 1, 2, 1)),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
    )
    module = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(96, 4))
    _, figures, path, file = exported(tmp_path, EDGES, "onnx", module, data=images)
    assert figures["difference"] < 0.02
    ran = {one.operator for one in file.ran()}
    assert "QLinearConv" in ran
    assert not {"Pad", "Conv", "FusedConv"} & ran
    graph = onnx_ir.load(path).graph
    pads = [node.attributes["pads"].value for node in graph if node.op_type == "Conv"]
    assert (2, 0, 1, 1) in {tuple(one) for one in pads}
    for node in graph:
        before = node.inputs[0].producer() if node.op_type == "QuantizeLinear" else None
        if before is not None and before.op_type == "DequantizeLinear":
            assert list(before.inputs[1:]) != list(node.inputs[1:])


def test_openvino_computes_every_layer_on_integers(integer_net):
    _, _, figures, _, file = integer_net("openvino")
    assert figures["difference"] < 0.02
    kinds = {"Convolution", "Pooling", "FullyConnected", "Eltwise"}
    layers = [one for one in file.ran() if one.operator in kinds]
    assert len([one for one in layers if one.operator == "Convolution"]) == 5
    assert {one.precision for one in layers} == {"int8"}


def test_a_static_network_takes_little_more_than_a_quarter(tmp_path, images):
    module = made(Net, channels=64)
    whole = sum(one.nbytes for one in module.state_dict().values())
    _, figures, path, _ = exported(tmp_path, EDGES, "onnx", module, data=images)
    assert figures["bytes"] == path.stat().st_size < 0.28 * whole


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("steps", "limit"),
    [
        ([], 1e-4),
        ([{"use": "quantize.weight_only"}], 0.005),  # ONNX Runtime rounds what meets 8-bit weights
        ([{"use": "quantize.weight_only", "bits": 4, "group_size": 16, "symmetric": False}], 1e-4),
        ([{"use": "quantize.weight_only", "bits": 3}], 0.005),
        ([{"use": "quantize.dynamic"}], 0.05),
    ],
    ids=["float", "int8", "int4", "int3", "dynamic"],
)
def test_a_transformer_computes_the_same(tmp_path, steps, limit, to):
    result, figures, _, file = exported(tmp_path, steps, to, made(Text), data=[IDS], example=IDS[:2])
    assert figures["difference"] < limit
    assert relative(file(IDS[:5]), result.model(IDS[:5])) < limit


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("steps", "limit"),
    [
        (STATIC, 0.01),
        ([{"use": "quantize.weight_only", "bits": 4, "group_size": 4, "symmetric": False}], 0.005),
        ([{"use": "quantize.cast", "dtype": "float16"}], 0.005),
    ],
    ids=["static", "int4", "float16"],
)
def test_every_kind_of_layer_and_inputs_by_name(tmp_path, steps, limit, to):
    draw = torch.Generator().manual_seed(0)
    batch = {"x": torch.randn(6, 4, 12, generator=draw), "scale": torch.rand(6, generator=draw)}
    data = {"calibration": [batch]}
    result, figures, _, file = exported(tmp_path, steps, to, made(Kinds), data=data)
    assert figures["difference"] < limit
    assert figures["free_batch"] is True
    expected = result.model(**batch)
    for found, wanted in zip(file(**batch), expected.values(), strict=True):
        assert relative(found, wanted) < limit


def test_bfloat16_says_what_to_use_instead(tmp_path):
    with pytest.raises(GraphError, match=r"'weight' is bfloat16(.|\n)*float16"):
        exported(tmp_path, [], "onnx", nn.Linear(4, 4).bfloat16(), example=torch.rand(2, 4).bfloat16())


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_after_a_cast_to_bfloat16_is_refused_before_anything_runs(to):
    steps = [{"use": "quantize.cast"}, {"use": f"export.{to}", "id": "file"}]
    with pytest.raises(RecipeError, match=r"needs weights\.exchangeable, which step 'cast' .* destroys"):
        demiglace.check({"pass": steps})
    steps[0]["dtype"] = "float16"
    demiglace.check({"pass": steps})


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_without_its_zeros_is_whole_in_the_file(tmp_path, to, bias):
    layer = made(lambda: nn.Sequential(nn.Linear(24, 40, bias=bias), nn.ReLU(), nn.Linear(40, 8)))
    prune = {"use": "prune.magnitude", "amount": 0.9, "scope": "layer"}
    steps = [prune, {"use": "deploy.sparse", "min_speedup": 0.0}]
    example = torch.randn(4, 3, 24)
    result, figures, _, file = exported(tmp_path, steps, to, layer, example=example)
    assert result.steps[1].edits == {"Swap": 2}
    assert figures["difference"] < 1e-6
    assert figures["free_batch"] is True
    assert relative(file(example[:1]), result.model(example[:1])) < 1e-6


@pytest.mark.parametrize("to", FORMATS)
def test_integers_without_their_zeros_are_the_same_file(tmp_path, to):
    kept = []
    sparse = {"use": "deploy.sparse_int8", "min_speedup": 0.0, "min_sparsity": 0.0, "allow_noop": True}
    for name, last in (("whole", []), ("without", [sparse])):
        steps = [{"use": "quantize.dynamic"}, *last]
        layer = made(lambda: nn.Linear(24, 40))
        (tmp_path / name).mkdir()
        _, _, path, _ = exported(tmp_path / name, steps, to, layer, example=torch.ones(2, 24))
        kept.append(path.with_suffix(".bin" if to == "openvino" else ".onnx").read_bytes())
    assert kept[0] == kept[1]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("width", "options", "bytes_of_a_row"),
    [
        (64, {"bits": 4}, 32),
        (64, {"bits": 4, "symmetric": True}, 32),
        (64, {"bits": 3, "group_size": 16}, 32),
        (64, {"bits": 2, "group_size": 16, "symmetric": True}, 16),
        (66, {"bits": 2}, 66),  # four parts of a row are not equal
        (64, {"bits": 8}, 64),
    ],
)
def test_the_table_of_an_embedding_takes_its_bits(tmp_path, to, width, options, bytes_of_a_row):
    steps = [{"use": "quantize.weight_only", **options}]
    table = made(lambda: nn.Embedding(1002, width))
    result, figures, _, file = exported(tmp_path, steps, to, table, example=IDS[:2], tolerance=1e-6)
    every = torch.arange(1002).view(-1, 6)
    assert relative(file(every), result.model(every)) < 1e-6
    groups = width // options.get("group_size", width)
    beside = 1002 * groups * (4 if options.get("symmetric") else 8)
    least = 1002 * bytes_of_a_row + beside
    assert least <= figures["bytes"] < least + 17_000


def test_four_bits_are_stored_as_four_bits(tmp_path):
    layer = nn.Linear(256, 256)
    steps = [{"use": "quantize.weight_only", "bits": 4, "group_size": 32}]
    _, figures, path, _ = exported(tmp_path, steps, "onnx", layer, example=torch.randn(2, 256))
    assert figures["bytes"] < 256 * 256 * 0.7
    kinds = {str(one.dtype) for one in onnx_ir.load(path).graph.initializers.values()}
    assert "INT4" in kinds


def test_dynamic_linear_layers_multiply_integers(tmp_path):
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
    x = torch.randn(16, 64)
    result, _, _, file = exported(tmp_path, [{"use": "quantize.dynamic"}], "onnx", module, example=x)
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} & {one.operator for one in file.ran()}
    assert relative(file(x[:1]), result.model(x[:1])) < 1e-4  # one row: the ranges are the same


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_with_the_transform_takes_raw_images(tmp_path, images, to):
    result, figures, _, file = exported(
        tmp_path,
        STATIC,
        to,
        made(Net),
        data=images,
        preprocess=True,
        file={"onnx": "a.onnx"}.get(to, "a.xml"),
    )
    assert figures["file"].startswith("a.")
    raw = images.split("test").untransformed()
    inputs = next(iter(raw.batches(48))).args[0]
    expected = result.model(next(iter(images.split("test").batches(48))).args[0])
    assert inputs.dtype == torch.uint8
    assert relative(file(inputs), expected) < 0.02
    assert torch.equal(file(inputs).argmax(1), expected.argmax(1))


def test_images_of_another_size_than_the_first_are_left_out(tmp_path):
    draw = torch.Generator().manual_seed(0)
    sizes = [(20, 20), (24, 20), (20, 20)]
    raw = [(torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8), 0) for size in sizes]
    split = DatasetSplit(raw).transformed(build_transform(TABLES))
    data = Data({"calibration": split}, transform=TABLES)
    result, figures, _, file = exported(tmp_path, [], "onnx", made(Net), data=data, preprocess=True)
    [warning] = result.record.steps[-1].warnings
    height = file.input_shape()[2]
    assert f"takes images of {height} x 20" in warning
    assert file(torch.zeros(1, 3, height, 20, dtype=torch.uint8)).shape == (1, 4)
    assert figures["difference"] < 0.01


def test_a_departing_file_fails_the_step_and_names_the_layer(tmp_path, images, monkeypatch):
    from demiglace_exporters.translation import layers

    right = layers._fitting

    def wrong(held, input_scale, bias):
        integers, scale = right(held, input_scale, bias)
        return integers, scale * (3 if held.shape[:2] == (16, 16) else 1)

    monkeypatch.setattr(layers, "_fitting", wrong)
    with pytest.raises(GraphError, match=r"layer 'blocks.0.first' is the first that departs"):
        exported(tmp_path, STATIC, "onnx", made(Net), data=images)
    assert list((tmp_path / "run" / "steps" / "02-file").iterdir()) == []


def test_an_operator_that_onnx_lacks_is_named_with_its_layer(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.digamma(x)

    module = nn.Sequential(nn.Linear(4, 4), Odd())
    with pytest.raises(DemiglaceError, match=r"layer '1' calls .*digamma") as caught:
        exported(tmp_path, [], "onnx", module, example=torch.rand(2, 4))
    assert "Traceback" not in str(caught.value)


def test_a_fixed_batch_is_said(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 4, 2).sum(1)

    result, figures, _, file = exported(tmp_path, [], "onnx", Fixed(), example=torch.rand(2, 8))
    assert figures["free_batch"] is False
    assert any("takes 2 at a time" in text for text in result.record.steps[-1].warnings)
    assert file(torch.rand(2, 8)).shape == (2, 2)


def test_a_file_tells_nothing_of_the_machine(integer_net):
    for to in FORMATS:
        folder, _, _, path, _ = integer_net(to)
        content = path.read_bytes()
        for text in (b".py", b"/home", str(folder).encode(), sys.prefix.encode(), b"site-packages"):
            assert text not in content, (to, text)


def test_a_bias_beyond_32_bits_and_dead_channels_are_kept(tmp_path):
    conv = nn.Conv2d(4, 6, 1)
    with torch.no_grad():
        conv.weight[0], conv.weight[1] = 0, 1e-12
        conv.bias[:2] = torch.tensor([0.7321, 1.2345])
    x = torch.randn(32, 4, 5, 5)
    result, figures, _, file = exported(tmp_path, STATIC, "onnx", nn.Sequential(conv), data=[x])
    assert figures["difference"] < 1e-4
    assert torch.allclose(file(x)[:, :2], result.model(x)[:, :2], atol=1e-6)


def test_a_missing_extra_is_told_when_the_recipe_is_planned(monkeypatch):
    from demiglace_exporters import _file

    monkeypatch.setattr(_file, "_installed", lambda name: name != "onnxscript")
    recipe = {"pass": [{"use": "export.onnx"}]}
    with pytest.raises(RecipeError, match="onnxscript is not installed") as caught:
        demiglace.plan(recipe, model=nn.Linear(2, 2))
    assert 'pip install "demiglace[onnx]"' in str(caught.value)


def test_existing_files_stay(tmp_path):
    from demiglace.graph import Example, ModelGraph
    from demiglace.passes import Context
    from demiglace_exporters.onnx import OnnxExportConfig, OnnxExporter

    (tmp_path / "model.onnx").write_text("precious")
    model = ModelGraph(nn.Linear(4, 2), Example((torch.rand(2, 4),)))
    with pytest.raises(UsageError, match="exists"):
        OnnxExporter(OnnxExportConfig()).write(model, tmp_path, Context(0, torch.device("cpu")))
    assert (tmp_path / "model.onnx").read_text() == "precious"


class Counting(nn.Module):
    """Gives something beside a tensor."""

    def __init__(self, beside):
        super().__init__()
        self.layer, self.beside = nn.Linear(4, 4), beside

    def forward(self, x):
        return {"scores": self.layer(x), "beside": self.beside(x)}


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (lambda x: 3, "3"),
        (lambda x: "a", "a"),
        (lambda x: x.shape[0], "a number"),
        (lambda x: x.sum().item(), "a number"),
    ],
    ids=["number", "text", "size", "value"],
)
def test_what_an_onnx_file_cannot_give_is_refused_in_words(beside, named, tmp_path):
    message = f"the model gives {named} among its outputs, which an ONNX file cannot"
    with pytest.raises(GraphError, match=message):
        exported(tmp_path, [], "onnx", Counting(beside), example=torch.rand(2, 4))


def test_none_among_the_outputs_is_left_out(tmp_path):
    *_, file = exported(tmp_path, [], "onnx", Counting(lambda x: None), example=torch.rand(2, 4))
    assert isinstance(file(torch.rand(2, 4)), torch.Tensor)
