"""`demiglace export`: a finished run, an artifact or a packed file in another format."""

import json

import pytest
import torch

import demiglace
from demiglace.artifact.packed import unpack
from demiglace.cli import main
from demiglace.plugins import discover

RECIPE = {
    "name": "small",
    "model": {"use": "lenet"},
    "data": {"use": "npz", "path": "digits.npz"},
    "pass": [{"use": "quantize.weight_only"}],
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run in the current folder."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 10
    np.savez("digits.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    demiglace.run(RECIPE | {"data": RECIPE["data"] | {"layout": "nhw"}}, out="run")
    return tmp_path / "run"


def test_a_run_is_exported_and_compared_on_its_data(run, capsys):
    assert main(["export", "run", "--to", "onnx"]) == 0
    assert capsys.readouterr().out == "wrote run/export/model.onnx\n"
    x = torch.rand(3, 1, 28, 28)
    file = discover().open_file("onnx", run / "export" / "model.onnx")
    assert torch.allclose(file(x), demiglace.load(run)(x), atol=1e-2)
    assert [one.name for one in (run / "export").iterdir()] == ["model.onnx"]


def test_options_are_set_and_json_tells_what_was_compared(run, capsys):
    arguments = ["export", "run", "--to", "onnx", "--out", "raw", "--set", "export.preprocess=true", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["raw/model.onnx"]
    assert told["difference"] <= told["tolerance"] == 0.01
    assert told["examples"] == 17
    file = discover().open_file("onnx", "raw/model.onnx")
    assert file(torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)).shape == (2, 10)


@pytest.mark.needs_no_runtime
def test_files_that_exist_and_unknown_formats_are_refused(run, capsys):
    assert main(["export", "run", "--to", "packed"]) == 0
    before = (run / "export" / "model.dgz").read_bytes()
    assert main(["export", "run", "--to", "packed"]) == 2
    assert "run/export/model.dgz exists" in capsys.readouterr().err
    assert (run / "export" / "model.dgz").read_bytes() == before
    assert main(["export", "run", "--to", "tflite"]) == 2
    assert "there is no export to 'tflite'" in capsys.readouterr().err
    assert main(["export", "run/export/model.dgz", "--to", "packed", "--out", "again"]) == 0
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(demiglace.load("again/model.dgz")(x), demiglace.load(run)(x))
    # It tells of the run that made the model, and not where that lay.
    recipe = unpack("again/model.dgz").info.provenance["recipe"]
    assert recipe["model"] == {"use": "lenet"}
    assert [step["use"] for step in recipe["pass"]] == ["quantize.weight_only"]


@pytest.mark.needs_no_runtime
def test_what_is_no_saved_model_is_told(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nothing"), "--to", "packed"]) == 2
    assert "nothing" in capsys.readouterr().err
