"""The shipped recipes that end with a file of another runtime, run as shipped but for fewer epochs."""

import pytest
import torch

import demiglace
from demiglace.plugins import discover

pytestmark = pytest.mark.slow

FILES = {
    "cnn-int8-onnx": ("onnx", "04-file/model.onnx", ("dense.epochs=6",)),
    "cnn-int8-openvino": ("openvino", "04-file/model.xml", ("dense.epochs=6",)),
    "qat-onnx": ("onnx", "04-file/model.onnx", ("dense.epochs=6", "learn.epochs=3")),
    "resnet18-channels-int8": ("openvino", "04-file/model.xml", ()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_ships_a_file_that_computes_convolutions_on_integers(name, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    runtime, place, overrides = FILES[name]
    result = demiglace.run(f"recipe:{name}", overrides=overrides, out=tmp_path / "run")
    assert result.passed, [str(gate) for gate in result.gates]
    file = discover().open_file(runtime, tmp_path / "run" / "steps" / place, threads=1)
    convolutions = [
        one.precision for one in file.ran() if one.operator in {"QLinearConv", "Convolution", "Conv"}
    ]
    assert convolutions
    assert set(convolutions) == {"int8"}
    figures = result.steps[-1].figures
    assert figures["difference"] < 0.05


def test_a_shipped_file_is_as_accurate_as_the_model(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    overrides = ["dense.epochs=3"]
    result = demiglace.run("recipe:cnn-int8-onnx", overrides=overrides, out=tmp_path / "run")
    recipe = {
        "model": {"use": "onnx", "path": str(tmp_path / "run" / "steps" / "04-file" / "model.onnx")},
        "data": {"use": "mnist5k"},
        "pass": [{"use": "evaluate.classification"}],
    }
    shipped = demiglace.run(recipe)
    assert shipped.metrics["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=0.003)
    assert torch.is_tensor(shipped.model(torch.rand(1, 1, 28, 28)))
