"""Whatever is wrong with an artifact or the structure it goes into is an error that says so."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from demiglace.artifact import CallerOrigin, GraphOrigin, SourceOrigin, load, open_artifact, save
from demiglace.artifact.manifest import manifest_json, read_info
from demiglace.artifact.state import TensorInfo
from demiglace.errors import ArtifactError
from demiglace.graph import Cut, Example, Mask, ModelGraph, SetAttr, apply
from demiglace.graph.plain import lower


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    """A whole artifact with a mask, and its graph beside it."""
    torch.manual_seed(0)
    model = ModelGraph(net(), Example((torch.randn(2, 4),)))
    apply(model, [Mask("0.weight", torch.rand(6, 4) > 0.5)]).commit()
    path = tmp_path_factory.mktemp("sound") / "model"
    save(model, path, origin=CallerOrigin.of(model.module), graph=lower(model))
    return path


@pytest.fixture
def copied(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def refused(path: Path, match: str, **given) -> ArtifactError:
    with pytest.raises(ArtifactError, match=match) as caught:
        load(path, **given)
    assert str(path) in str(caught.value)
    assert all(fault.hint for fault in caught.value.faults)
    return caught.value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@pytest.mark.parametrize("file", ["model.safetensors", "graph.json.gz", "manifest.json"])
def test_no_flipped_bit_is_loaded(sound, tmp_path, file, place, bit):
    folder = tmp_path / "flipped"
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    content = bytearray((sound / file).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / file).write_bytes(content)
    whole = load(sound)
    try:
        again = load(folder)
    except ArtifactError:
        return
    # White space between the manifest's values says nothing: any other bit must be noticed.
    assert file == "manifest.json"
    assert json.loads(content) == json.loads((sound / file).read_text())
    assert torch.equal(again[0].weight, whole[0].weight)


@pytest.mark.parametrize("file", ["model.safetensors", "graph.json.gz", "manifest.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(copied, file, share):
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content[: int(share * len(content))])
    refused(copied, file)


@pytest.mark.parametrize("file", ["model.safetensors", "graph.json.gz"])
def test_a_missing_file_is_refused(copied, file):
    (copied / file).unlink()
    refused(copied, f"{file} is missing")


def test_what_is_no_artifact_is_refused(tmp_path):
    refused(tmp_path / "absent", "there is no such folder")
    refused(tmp_path, "it has no manifest.json")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "not a packed model")
    (tmp_path / "manifest.json").write_text('{"format": "else"}')
    refused(tmp_path, "is not of a demiglace artifact")
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    refused(tmp_path, "cannot be read")


def rewritten(path: Path, **changes) -> None:
    """Change an artifact's manifest with its checksum, as one who forges it would."""
    info = read_info(path)
    content = manifest_json(info) | changes
    del content["checksum"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    content["checksum"] = hashlib.sha256(text).hexdigest()
    (path / "manifest.json").write_text(json.dumps(content))


def test_an_unknown_version_says_what_to_install(copied):
    rewritten(copied, version=99)
    error = refused(copied, "format version 99; this demiglace reads version 1")
    assert "newer" in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": {"kind": "pickle"}},
        {"state": {}},
        {"form": "other"},
        {"files": []},
        {"constants": {"x": {"dtype": "float32", "shape": [-1], "sha256": "", "requires_grad": False}}},
        {"transform": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_forged_manifest_is_refused(copied, changes):
    rewritten(copied, **changes)
    refused(copied, "manifest")


@pytest.mark.parametrize(
    "edit",
    [
        {"edit": "import", "module": "os"},
        {"edit": "cut", "tensor": "0.weight", "dim": 0, "kept": [2, 1]},
        {"edit": "cut", "tensor": "0.weight", "dim": 0, "kept": [True]},
        {"edit": "set", "module": "0", "name": 3, "value": 1},
    ],
)
def test_only_the_closed_set_of_edits_is_read(copied, edit):
    state = read_info(copied).state.to_json()
    rewritten(copied, state={**state, "edits": [edit]})
    with pytest.raises(ArtifactError, match="not an edit"):
        load(copied)


def forged_tensors(path: Path, header: dict[str, object], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    (path / "model.safetensors").write_bytes(content)
    files = manifest_json(read_info(path))["files"]
    files["model.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewritten(path, files=files)


def test_declared_sizes_are_compared_before_memory_is_allocated(copied):
    huge = 1 << 45
    info = TensorInfo("float32", (huge,), "0" * 64)
    rewritten(copied, constants={"huge": info.to_json()})
    names = {**read_info(copied).state.tensors, "huge": info}
    header, start = {}, 0
    for name, each in names.items():
        length = 4 * torch.Size(each.shape).numel() if each.dtype == "float32" else 8
        header[name] = {"dtype": "F32", "shape": list(each.shape), "data_offsets": [start, start + length]}
        start += length
    forged_tensors(copied, header)
    refused(copied, "holds other tensors than its manifest says")


@pytest.mark.parametrize(
    "text", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}", b"x" * 40]
)
def test_a_forged_tensors_file_is_refused(copied, text):
    files = manifest_json(read_info(copied))["files"]
    files["model.safetensors"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    rewritten(copied, files=files)
    (copied / "model.safetensors").write_bytes(text)
    refused(copied, "model.safetensors")


class Wider(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Wider, r"'0.weight' is float32 \[8, 4\], saved float32 \[6, 4\].*and \d+ more"),
        (lambda: net().double(), "'0.weight' is float64"),
        (lambda: net()[:3], "'3.weight' is missing"),
        (lambda: net().append(nn.Linear(2, 2)), "'4.weight' is not in the saved model"),
        (lambda: "a model", "gave a str"),
    ],
)
def test_another_structure_is_refused_with_what_differs(sound, model, said):
    with pytest.raises(ArtifactError, match=said):
        load(sound, model=model)


def test_another_tie_is_refused(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    save(ModelGraph(tied()), tmp_path / "m", origin=CallerOrigin.of(tied()))
    with pytest.raises(ArtifactError, match="share one tensor"):
        load(tmp_path / "m", model=lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))


def test_a_callers_model_without_graph_names_class_and_file(tmp_path):
    model = Wider()
    save(ModelGraph(model), tmp_path / "m", origin=CallerOrigin.of(model))
    error = refused(tmp_path / "m", "Wider")
    assert "model=Wider(...)" in str(error)


def test_a_source_without_registry_says_how_to_open_it(tmp_path):
    save(ModelGraph(net()), tmp_path / "m", origin=SourceOrigin("net"))
    assert "demiglace.load" in str(refused(tmp_path / "m", "the source 'net'"))


def test_a_source_that_builds_another_structure_now_is_refused(tmp_path):
    save(ModelGraph(net()), tmp_path / "m", origin=SourceOrigin("net"))
    refused(tmp_path / "m", r"'0.weight' has shape \[8, 4\], saved was \[6, 4\]", resolve=lambda *_: Wider)
    refused(tmp_path / "m", "it has no '3.weight'", resolve=lambda *_: lambda: net()[:3])


def test_a_source_that_fails_to_build_is_named(tmp_path):
    def broken():
        raise ZeroDivisionError("no layers")

    save(ModelGraph(net()), tmp_path / "m", origin=SourceOrigin("net"))
    refused(
        tmp_path / "m", "the source 'net' failed to build the model: no layers", resolve=lambda *_: broken
    )


def test_a_graph_that_is_not_listed_is_refused(tmp_path):
    model = lower(ModelGraph(net(), Example((torch.randn(2, 4),))))
    save(ModelGraph(model), tmp_path / "m", origin=GraphOrigin())
    files = manifest_json(read_info(tmp_path / "m"))["files"]
    rewritten(tmp_path / "m", files={"model.safetensors": files["model.safetensors"]})
    refused(tmp_path / "m", "lists no graph.json.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "is not a gzip file"),
        (gzip.compress(b"\xff", mtime=0), "is not a gzip file of text"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "is cut off"),
    ],
)
def test_a_graph_file_that_was_written_otherwise_is_refused(content, message, tmp_path):
    model = lower(ModelGraph(net(), Example((torch.randn(2, 4),))))
    save(ModelGraph(model), tmp_path / "m", origin=GraphOrigin())
    (tmp_path / "m" / "graph.json.gz").write_bytes(content)
    files = manifest_json(read_info(tmp_path / "m"))["files"]
    digest = hashlib.sha256(content).hexdigest()
    files["graph.json.gz"] = {"bytes": len(content), "sha256": digest}
    rewritten(tmp_path / "m", files=files)
    refused(tmp_path / "m", message)


def test_a_callers_module_is_as_it_was_after_a_refusal(tmp_path):
    model = ModelGraph(net())
    origin = CallerOrigin.of(model.module)
    kept = (0, 2, 4)
    edits = [Cut(f"1.{name}", 0, kept) for name in ("weight", "bias", "running_mean", "running_var")]
    edits += [Cut("0.weight", 0, kept), Cut("0.bias", 0, kept), Cut("3.weight", 1, kept)]
    apply(model, [*edits, SetAttr("0", "out_features", 3)]).commit()
    save(model, tmp_path / "m", origin=origin)
    content = bytearray((tmp_path / "m" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    given = net()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    refused(tmp_path / "m", "SHA-256", model=given)
    assert given[0].out_features == 6
    after = given.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_folder_that_is_no_artifact_is_not_replaced(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not an artifact"):
        save(ModelGraph(net()), tmp_path / "work", origin=SourceOrigin("net"))
    assert (tmp_path / "work" / "thesis.txt").read_text() == "mine"


def test_a_full_disk_leaves_the_old_artifact(copied, monkeypatch):
    from demiglace.artifact import tensor_file

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensor_file, "write_tensors", full)
    with pytest.raises(ArtifactError, match="No space left on device") as caught:
        save(ModelGraph(Wider()), copied, origin=SourceOrigin("wider"))
    assert "free some space" in str(caught.value)
    assert os.listdir(copied.parent) == ["model"]
    assert isinstance(open_artifact(copied).module, nn.Module)


def test_a_file_that_may_not_grow_is_an_error_and_leaves_nothing(tmp_path):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    code = """
import sys
from torch import nn
from demiglace.artifact import SourceOrigin, save
from demiglace.errors import ArtifactError
from demiglace.graph import ModelGraph
try:
    save(ModelGraph(nn.Linear(300, 300)), sys.argv[1], origin=SourceOrigin("linear"))
except ArtifactError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "m")]
    done = subprocess.run(command, preexec_fn=limited, check=True, capture_output=True, text=True)
    assert "cannot write" in done.stdout
    assert "free some space" in done.stdout
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, [1, {"x": b""}]])
def test_an_edit_that_json_cannot_hold_is_refused_when_saved(tmp_path, value):
    model = ModelGraph(net(), edits=[SetAttr("0", "scale", value)])
    with pytest.raises(ArtifactError, match="'scale'"):
        save(model, tmp_path / "m", origin=SourceOrigin("net"))
    assert not os.listdir(tmp_path)
