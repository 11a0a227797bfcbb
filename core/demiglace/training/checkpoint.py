"""A training on disk as it stood after an epoch: the model as an artifact, and all that goes on from there.

It is a folder such as `epoch-0003`: in `model` an artifact, which `demiglace.load` opens; in `training.json`
the position, the history, the rates; in `training.safetensors` moments, averages, random states.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.artifact import GraphOrigin, save
from demiglace.artifact.atomic import new_directory, write_json, writing
from demiglace.artifact.checked_json import DAMAGED, CheckedJson
from demiglace.artifact.loading import read_folder
from demiglace.artifact.manifest import ArtifactInfo, FileInfo
from demiglace.artifact.tensor_file import read_tensors, write_tensors
from demiglace.errors import ArtifactError
from demiglace.graph.names import dtype_name
from demiglace.training.plain import join, split

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph

_MODEL, _STATE, _TENSORS = "model", "training.json", "training.safetensors"
_FILE = CheckedJson(_STATE, "checkpoint", "demiglace-checkpoint", 1)


@dataclass(frozen=True)
class Checkpoint:
    """What was read of one."""

    #: The model's artifact, its tensors and its masks by name.
    model: tuple[ArtifactInfo, dict[str, Tensor], dict[str, Tensor]]
    #: As it was handed to `write_checkpoint`.
    state: Mapping[str, Any]


def name_of(epoch: int) -> str:
    """The folder's name of the checkpoint after an epoch."""
    return f"epoch-{epoch:04d}"


def write_checkpoint(target: Path, model: ModelGraph, state: Mapping[str, object]) -> None:
    """Write a checkpoint: the folder appears whole or not at all.

    Raises:
        ArtifactError: when the disk is full, or the state holds what cannot be stored.
    """
    plain, tensors = split(state)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as fresh:
            save(model, fresh / _MODEL, origin=model.origin or GraphOrigin())
            file, _ = write_tensors(fresh / _TENSORS, tensors)
            content = {
                "state": plain,
                "tensors": {name: [dtype_name(one), list(one.shape)] for name, one in tensors.items()},
                "file": {"bytes": file.bytes, "sha256": file.sha256},
            }
            write_json(fresh / _STATE, _FILE.sealed(content))


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove the other checkpoints of a folder; what has its own name there is whole at every moment."""
    for old in folder.glob("epoch-*"):
        if old.name not in names:
            old.rename(folder / f".{old.name}.gone")
    for gone in folder.glob(".epoch-*.gone"):
        shutil.rmtree(gone)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; every byte is checked.

    Raises:
        ArtifactError: when it is missing, damaged, or of another version.
    """
    folder = Path(path)
    content = _FILE.read(folder, "give a folder such as epoch-0003")
    try:
        declared = {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in content["tensors"].items()}
        file = FileInfo(int(content["file"]["bytes"]), str(content["file"]["sha256"]))
        plain = content["state"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / _STATE} is not valid: {error!r}", hint=DAMAGED) from None
    tensors = read_tensors(folder / _TENSORS, declared, file)
    return Checkpoint(read_folder(folder / _MODEL), join(plain, tensors))
