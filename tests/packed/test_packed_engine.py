"""`export.packed` in a run, `demiglace.load` in a fresh process, and `demiglace inspect`."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact import open_artifact, read_info
from demiglace.artifact.inspection import inspect
from demiglace.cli import main
from demiglace.graph import Example, Lower, ModelGraph, apply
from demiglace.plugins import discover, structures

RECIPE = """
name = "small"
[model]
use = "mlp"
widths = [20, 16, 5]
[[pass]]
use = "prune.magnitude"
amount = 0.5
[[pass]]
use = "quantize.weight_only"
bits = 4
[[pass]]
use = "export.packed"
level = "max"
"""

IN_A_FRESH_PROCESS = """
import sys, torch
def refuse(event, _):
    assert event not in {"pickle.find_class", "socket.connect"}, event
sys.addaudithook(refuse)
import demiglace
torch.manual_seed(0)
print(demiglace.load(sys.argv[1])(torch.randn(3, 20)).detach().numpy().tobytes().hex())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory and the model that the run gave."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "r.toml").write_text(RECIPE)
    result = demiglace.run(folder / "r.toml", out=folder / "out")
    return folder / "out", result.graph.module.eval()


@pytest.fixture
def file(run):
    return next(run[0].glob("steps/*/model.dgz"))


def test_a_fresh_process_loads_the_very_model(run, file):
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(file)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    torch.manual_seed(0)
    assert printed == run[1](torch.randn(3, 20)).detach().numpy().tobytes().hex()


def test_the_file_is_the_runs_model_with_its_recipe(run, file):
    opened = open_artifact(file, resolve=structures(discover()))
    saved = read_info(run[0] / "model")
    assert opened.info.digest == saved.digest
    assert opened.info.provenance == saved.provenance
    assert opened.info.provenance["recipe"]["name"] == "small"


def test_the_runs_record_has_the_files_size(run, file):
    steps = json.loads((run[0] / "run.json").read_text())["steps"]
    figures = steps[-1]["figures"]
    assert figures["bytes"] == file.stat().st_size
    assert figures["smaller_than_fp32"] == round(4 * (20 * 16 + 16 + 16 * 5 + 5) / figures["bytes"], 3)


def test_a_packed_file_is_a_source(file, tmp_path):
    source = {"use": "artifact", "path": str(file)}
    recipe = {"name": "again", "model": source, "pass": [{"use": "export.packed"}]}
    demiglace.run(recipe, out=tmp_path / "out")
    again = next(tmp_path.glob("out/steps/*/model.dgz"))
    assert inspect(again).info.digest == inspect(file).info.digest


def test_a_run_that_opens_a_saved_model_says_how_small_that_is(run, file, tmp_path):
    wanted = json.loads((run[0] / "run.json").read_text())["steps"][-1]["figures"]
    for path in (file, run[0], run[0] / "model"):
        recipe = {"name": "again", "model": {"use": "artifact", "path": str(path)}}
        recipe["pass"] = [{"use": "evaluate.sparsity"}]
        out = tmp_path / path.name
        demiglace.run(recipe, out=out)
        opened = json.loads((out / "run.json").read_text())["opened"]
        if path == file:
            assert opened == {name: wanted[name] for name in ("bytes", "smaller_than_fp32")}
        else:
            size = sum(one.stat().st_size for one in (run[0] / "model").iterdir())
            assert opened == {"bytes": size, "smaller_than_fp32": round(4 * 421 / size, 3)}
    assert json.loads((run[0] / "run.json").read_text())["opened"] == {}


@pytest.mark.parametrize("graph", [False, True])
def test_zeros_of_layers_that_hold_their_nonzeros_are_counted(graph, tmp_path):
    torch.manual_seed(0)
    inputs, build = torch.randn(4, 24), lambda: nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 6))
    net = build()
    if graph:
        lowered = ModelGraph(net.eval(), Example((inputs,)))
        apply(lowered, [Lower()]).commit()
        net = lowered.module
    prune = {"use": "prune.magnitude", "amount": 0.9, "scope": "layer", "targets": ["0"]}
    hold = {"use": "deploy.sparse", "min_speedup": 0.0, "targets": ["0"]}
    recipe = {"pass": [prune, hold, {"use": "export.packed"}]}
    demiglace.run(recipe, model=net, example_inputs=inputs, out=tmp_path / "run")
    for path in (next(tmp_path.glob("run/steps/*/model.dgz")), tmp_path / "run" / "model"):
        report = inspect(path, model=None if graph else build)
        assert report.weights == 24 * 40 + 40 + 40 * 6 + 6
        values = next(one for one in report.tensors if one.name.endswith("_values"))
        assert (values.shape, values.elements, values.zeros) == ((40, 24), 960, 864)
        assert values.is_weight
        assert values.bits_per_element < 4.5, "96 values of 32 bits for 960 weights"
        places = [one for one in report.tensors if one.name.endswith(("_columns", "_rows"))]
        assert [one.is_weight for one in places] == [False, False]


def test_cuts_come_back_and_take_few_bytes(tmp_path):
    passes = [{"use": "prune.neurons", "amount": 0.5}, {"use": "export.packed"}]
    recipe = {"name": "cut", "model": {"use": "mlp", "widths": [20, 400, 5]}, "pass": passes}
    result = demiglace.run(recipe, out=tmp_path / "out")
    file = next(tmp_path.glob("out/steps/*/model.dgz"))
    artifact = open_artifact(file, resolve=structures(discover()))
    assert artifact.info.state.edits == tuple(result.graph.edits)
    inputs = torch.randn(3, 20)
    assert torch.equal(artifact.module(inputs), result.graph.module.eval()(inputs))
    header = inspect(file)
    weights = 20 * 400 + 400 + 400 * 5 + 5
    assert (header.weights, header.original_weights) == (20 * 200 + 200 + 200 * 5 + 5, weights)
    assert header.ratios()["float32"] == 4 * weights / file.stat().st_size
    assert result.steps[-1].figures["smaller_than_fp32"] == round(4 * weights / file.stat().st_size, 3)
    kept = sum(len(edit.kept) for edit in result.graph.edits if hasattr(edit, "kept"))
    assert kept == 3 * 200
    assert header.bytes - sum(one.bytes for one in header.tensors) < 400


def test_a_file_of_an_absent_plugin_names_its_source(file):
    with pytest.raises(demiglace.DemiglaceError, match="'mlp'"):
        open_artifact(file, resolve=structures(discover(["sources"])))


NETS = """
import demiglace
from demiglace.passes import Config, ModelSource, Provides, SourceSpec


class Options(Config):
    '''A linear layer.'''


class Net(ModelSource):
    def build(self):
        from torch import nn

        return nn.Sequential(nn.Linear(6, 3))


@demiglace.hookimpl
def demiglace_sources():
    return [SourceSpec("acme-net", Provides.MODEL, Options, "acme_nets:Net")]
"""


def test_a_file_made_by_an_absent_plugin_names_the_distribution(site, tmp_path):
    site.install("acme-nets", {"acme_nets": NETS}, version="1.3")
    passes = [{"use": "prune.magnitude", "amount": 0.5}, {"use": "export.packed"}]
    demiglace.run({"name": "a", "model": {"use": "acme-net"}, "pass": passes}, out=tmp_path / "run")
    file = next(tmp_path.glob("run/steps/*/model.dgz"))
    assert isinstance(demiglace.load(file), nn.Sequential)
    for path in (file, tmp_path / "run" / "model"):
        with pytest.raises(
            demiglace.DemiglaceError, match=r"'acme-net', which acme-nets==1\.3 gives"
        ) as caught:
            open_artifact(path, resolve=structures(discover(["acme_nets"])))
        assert "pip install 'acme-nets==1.3'" in str(caught.value)
        assert str(path) in str(caught.value)
    assert inspect(file).weights == 6 * 3 + 3, "looking at it needs no plugin"


def test_inspect_agrees_for_file_artifact_and_run(run, file, capsys):
    reports = {}
    for path in (file, run[0] / "model", run[0]):
        assert main(["inspect", str(path), "--json"]) == 0
        reports[path] = json.loads(capsys.readouterr().out)
    packed, artifact, whole = reports.values()
    assert artifact == whole
    for one, other in zip(packed["tensors"], artifact["tensors"], strict=True):
        same = ("name", "shape", "dtype", "elements", "zeros", "bits", "entropy", "is_weight", "kept")
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
    assert packed["weights"] == 20 * 16 + 16 + 16 * 5 + 5
    assert packed["bytes"] == file.stat().st_size
    assert packed["smaller_than"]["float32"] == 4 * packed["weights"] / packed["bytes"]


def test_inspect_counts_packed_integers_not_bytes(file):
    codes = {one.name: one for one in inspect(file).tensors if one.name.endswith("_codes")}
    first = next(iter(codes.values()))
    assert (first.shape, first.dtype, first.bits, first.elements) == ((16, 20), "int4", 4, 320)
    assert 0.3 < first.sparsity < 1
    assert 0 < first.entropy < 4


def test_inspect_prints_a_table_and_the_recipe(file, capsys):
    assert main(["inspect", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "TENSOR" in printed
    assert "fc1.weight_codes" in printed
    assert f"{file.stat().st_size:,} bytes in all for 421 weights" in printed
    assert '"name": "small"' in printed


def test_inspect_shows_what_masks_keep(tmp_path):
    recipe = {"name": "m", "pass": [{"use": "prune.magnitude", "amount": 0.25}, {"use": "export.packed"}]}
    net = nn.Sequential(nn.Linear(8, 4))
    demiglace.run(recipe, model=net, example_inputs=torch.zeros(2, 8), out=tmp_path / "out")
    file = next(tmp_path.glob("out/steps/*/model.dgz"))
    kept = {one.name: one.kept for one in inspect(file).tensors}
    assert kept == {"0.weight": 0.75, "0.bias": None}
    assert torch.equal(demiglace.load(file)(torch.ones(1, 8)), net(torch.ones(1, 8)))


def test_inspect_of_something_else_says_so(tmp_path, capsys):
    (tmp_path / "x").write_text("something")
    assert main(["inspect", str(tmp_path / "x")]) == 2
    assert "not a packed model" in capsys.readouterr().err
