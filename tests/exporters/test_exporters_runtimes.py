"""Exported files as modules: what they compute, what they weigh, and what they refuse."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import SourceError, UsageError
from demiglace.graph import ModelGraph
from demiglace.measure import measure
from demiglace.plugins import discover
from demiglace_exporters.runtimes.openvino import library

RUNTIMES = [("onnx", "net.onnx"), ("openvino", "net.xml")]
X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The same network as an ONNX and as an OpenVINO file, by torch's and OpenVINO's own converters."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    openvino = library()
    folder = tmp_path_factory.mktemp("files")
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(net, (X[:2],), dynamo=True, dynamic_shapes=shapes, verbose=False)
    program.save(folder / "net.onnx")
    converted = openvino.convert_model(folder / "net.onnx")
    openvino.save_model(converted, folder / "net.xml", compress_to_fp16=False)
    return folder


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_a_file_computes_what_the_network_did_at_any_batch(files, net, runtime, name):
    module = discover().open_file(runtime, files / name, threads=1)
    for size in (1, 2, 5):
        assert torch.allclose(module(X[:size]), net(X[:size]), atol=1e-5)


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_a_file_weighs_its_bytes_and_can_be_copied(files, runtime, name):
    module = discover().open_file(runtime, files / name)
    before = module(X)
    parts = [files / name, *([files / "net.bin"] if runtime == "openvino" else [])]
    assert measure(ModelGraph(module)).bytes == sum(part.stat().st_size for part in parts)
    assert torch.equal(copy.deepcopy(module)(X), before)


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_a_runtime_tells_what_it_ran(files, runtime, name):
    ran = discover().open_file(runtime, files / name).ran()
    convolutions = [one for one in ran if "Conv" in one.operator]
    assert [one.precision for one in convolutions] == ["fp32"]


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_wrong_inputs_are_a_users_mistake(files, runtime, name):
    module = discover().open_file(runtime, files / name)
    with pytest.raises(UsageError, match=r"refuses float32 \[5, 2, 8, 8\]"):
        module(X[:, :2])
    with pytest.raises(UsageError, match=r"takes .* beside 0 inputs"):
        module(image=X)


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_damaged_and_absent_files_are_told(files, tmp_path, runtime, name):
    with pytest.raises(SourceError, match="cannot read"):
        discover().open_file(runtime, tmp_path / name)
    (tmp_path / name).write_bytes(b"no model")
    (tmp_path / "net.bin").write_bytes(b"no weights")
    with pytest.raises(SourceError, match="cannot open the file"):
        discover().open_file(runtime, tmp_path / name)(X)


def test_a_precision_that_a_runtime_lacks_is_refused(files):
    with pytest.raises(UsageError, match="not in bf16"):
        discover().open_file("onnx", files / "net.onnx", precision="bf16")


@pytest.mark.parametrize(("runtime", "name"), RUNTIMES)
def test_a_recipe_evaluates_a_file(files, net, tmp_path, runtime, name):
    data = {"test": [(X, net(X).argmax(1))]}
    recipe = {
        "model": {"use": runtime, "path": str(files / name)},
        "pass": [{"use": "evaluate.classification"}],
    }
    result = demiglace.run(recipe, data=data, out=tmp_path / "run")
    assert result.metrics["accuracy"] == 1.0
    assert torch.allclose(demiglace.load(tmp_path / "run")(X), net(X), atol=1e-5)


def test_a_file_that_another_took_the_place_of_is_not_loaded_for_it(files, tmp_path):
    (tmp_path / "net.onnx").write_bytes((files / "net.onnx").read_bytes())
    recipe = {
        "model": {"use": "onnx", "path": str(tmp_path / "net.onnx")},
        "pass": [{"use": "evaluate.classification"}],
    }
    data = {"test": [(X, torch.zeros(5, dtype=torch.long))]}
    before = demiglace.run(recipe, data=data, out=tmp_path / "run").model(X)
    other = bytearray((tmp_path / "net.onnx").read_bytes())
    other[other.index(b"pytorch")] = ord("P")
    (tmp_path / "net.onnx").write_bytes(other)
    assert torch.equal(demiglace.load(tmp_path / "run")(X), before)


SENDS = """
import sys
from demiglace.plugins import discover
discover().open_file("openvino", sys.argv[1]).session
import openvino
openvino.Core()
print(sys.modules["openvino_telemetry"])
"""


def test_openvino_reports_nothing_to_its_maker(files, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", SENDS, str(files / "net.xml")],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["None"]
    assert not list(tmp_path.glob("**/openvino_*"))


OPENS = """
import sys
from demiglace.plugins import discover
discover().open_file("onnx", sys.argv[1]).session
"""


def test_onnx_runtime_reports_nothing_to_its_maker(files, tmp_path):
    told = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in told}
    subprocess.run(
        [sys.executable, "-c", OPENS, str(files / "net.onnx")],
        env=environment | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        check=True,
    )
    assert not list(tmp_path.rglob("*"))


SIGNALLED = """
import faulthandler, gc, os, signal, sys
faulthandler.enable()
from demiglace.plugins import discover
first, second = (discover().open_file("openvino", sys.argv[1]) for _ in range(2))
first.session, second.session
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_openvino_ran_two_files(files):
    command = [sys.executable, "-c", SIGNALLED, str(files / "net.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")
