"""The shipped recipes that end with a file of another runtime, run as shipped but for fewer epochs."""

from functools import cache

import pytest
import torch

import demiglace
from demiglace.plugins import discover

pytestmark = pytest.mark.slow

FILES = {
    "cnn-int8-onnx": ("onnx", "04-file/model.onnx"),
    "cnn-int8-openvino": ("openvino", "04-file/model.xml"),
    "qat-onnx": ("onnx", "04-file/model.onnx"),
    "resnet18-channels-int8": ("openvino", "04-file/model.xml"),
}


@pytest.fixture(scope="module")
def run(from_trained, tmp_path_factory):
    """A function that runs a recipe, once for all tests of it, and gives its result and the file."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    shorter = {"qat-onnx": [*from_trained, "learn.epochs=3"], "resnet18-channels-int8": []}

    @cache
    def ran(name):
        folder = tmp_path_factory.mktemp(name) / "run"
        result = demiglace.run(f"recipe:{name}", overrides=shorter.get(name, from_trained), out=folder)
        return result, folder / "steps" / FILES[name][1]

    return ran


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_ships_a_file_that_computes_convolutions_on_integers(name, run):
    result, path = run(name)
    assert result.passed, [str(gate) for gate in result.gates]
    file = discover().open_file(FILES[name][0], path, threads=1)
    convolutions = [
        one.precision for one in file.ran() if one.operator in {"QLinearConv", "Convolution", "Conv"}
    ]
    assert convolutions
    assert set(convolutions) == {"int8"}
    figures = result.steps[-1].figures
    assert figures["difference"] < 0.05


def test_a_shipped_file_is_as_accurate_as_the_model(run):
    result, path = run("cnn-int8-onnx")
    recipe = {
        "model": {"use": "onnx", "path": str(path)},
        "data": {"use": "mnist5k"},
        "pass": [{"use": "evaluate.classification"}],
    }
    shipped = demiglace.run(recipe)
    assert shipped.metrics["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=0.003)
    assert torch.is_tensor(shipped.model(torch.rand(1, 1, 28, 28)))
