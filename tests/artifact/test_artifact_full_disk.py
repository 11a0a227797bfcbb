"""On a disk that is really full nothing is left half written, and what was there stays."""

import json
import subprocess

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact import GraphOrigin, load, save
from demiglace.artifact.packed import pack, unpack
from demiglace.errors import ArtifactError, DemiglaceError
from demiglace.graph import Example, ModelGraph
from demiglace.graph.plain import lower

SIZE = 256 << 10


@pytest.fixture
def disk(tmp_path):
    """A file system of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "demiglace-test", str(place)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def model(width):
    torch.manual_seed(0)
    return ModelGraph(nn.Sequential(nn.Linear(width, width)).eval(), Example((torch.zeros(2, width),)))


def write(kind, graph, path):
    if kind == "packed":
        return pack(graph, path, origin=GraphOrigin(), graph=lower(graph))
    return save(graph, path, origin=GraphOrigin(), graph=lower(graph))


def found(place):
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


@pytest.mark.parametrize("kind", ["packed", "folder"])
def test_a_model_that_does_not_fit_leaves_nothing(kind, disk):
    with pytest.raises(ArtifactError, match="No space left") as caught:
        write(kind, model(400), disk / "m")
    assert "free some space" in str(caught.value)
    assert found(disk) == []


@pytest.mark.parametrize("kind", ["packed", "folder"])
def test_a_model_that_does_not_fit_leaves_the_one_that_was_there(kind, disk):
    small = model(20)
    write(kind, small, disk / "m")
    before = found(disk)
    with pytest.raises(ArtifactError, match="No space left"):
        write(kind, model(400), disk / "m")
    assert found(disk) == before
    inputs = torch.randn(3, 20)
    assert torch.equal(load(disk / "m")(inputs), small.module(inputs))


def test_every_size_of_room_gives_a_whole_file_or_none(disk):
    path, filler = disk / "m.dgz", disk / "filler"
    graph = model(80)
    whole = pack(graph, disk / "whole.dgz", origin=GraphOrigin()).bytes
    (disk / "whole.dgz").unlink()
    for room in range(0, whole + (64 << 10), 4096):
        filler.write_bytes(bytes(SIZE - room))
        try:
            pack(graph, path, origin=GraphOrigin())
        except ArtifactError:
            assert found(disk) == ["filler"]
        else:
            assert path.stat().st_size == whole
            path.unlink()
        filler.unlink()


@pytest.mark.parametrize("room", [8 << 10, 20 << 10, 60 << 10])
def test_a_run_whose_disk_fills_up_leaves_a_whole_run_json_or_none(room, disk):
    (disk / "filler").write_bytes(bytes(SIZE - room))
    recipe = {
        "name": "full",
        "model": {"use": "mlp", "widths": [200, 100, 5]},
        "pass": [{"use": "prune.magnitude", "amount": 0.5}, {"use": "export.packed"}],
    }
    with pytest.raises(DemiglaceError, match="No space left"):
        demiglace.run(recipe, out=disk / "run")
    assert not any(".new-" in name for name in found(disk))
    assert not (disk / "run" / "model").exists()
    for file in disk.rglob("*.dgz"):
        assert unpack(file).tensors, "written whole before the disk was full"
    if (disk / "run" / "run.json").exists():
        assert json.loads((disk / "run" / "run.json").read_text())["format"] == 1
