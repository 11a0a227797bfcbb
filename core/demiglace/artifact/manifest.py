"""`manifest.json`: everything of an artifact but its tensors. Read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.artifact.atomic import canonical_json
from demiglace.artifact.edit_codec import edit_from_json, edit_to_json
from demiglace.artifact.origins import CallerOrigin, GraphOrigin, Origin, SourceOrigin, Structure
from demiglace.errors import ArtifactError
from demiglace.graph.edits import Lower, StructuralEdit

FORMAT = "demiglace-artifact"
VERSION = 1
MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
GRAPH = "graph.json"
MASK_PREFIX = "mask:"
"""Before a parameter's name: the key of its bit-packed mask in the tensors file."""

DAMAGED = "copy it again from where it came, or run the recipe again"


@dataclass(frozen=True)
class TensorInfo:
    """A stored parameter, buffer or constant."""

    #: As torch names it, such as `float32`.
    dtype: str
    shape: tuple[int, ...]
    #: Of the elements' bytes in row-major order.
    sha256: str
    #: Of the tensor in memory, in elements, where it is not row-major (channels last, say).
    stride: tuple[int, ...] | None = None
    requires_grad: bool = False

    def to_json(self) -> dict[str, Any]:
        """As in the manifest."""
        known = {"dtype": self.dtype, "shape": list(self.shape), "sha256": self.sha256}
        stride = {} if self.stride is None else {"stride": list(self.stride)}
        return {**known, **stride, "requires_grad": self.requires_grad}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorInfo:
        """What `to_json` gave."""
        stride = value.get("stride")
        return cls(
            str(value["dtype"]),
            _sizes(value["shape"]),
            str(value["sha256"]),
            None if stride is None else _sizes(stride),
            bool(value["requires_grad"]),
        )


@dataclass(frozen=True)
class MaskInfo:
    """A stored mask, eight weights a byte."""

    shape: tuple[int, ...]
    #: Of the packed bytes.
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As in the manifest."""
        return {"shape": list(self.shape), "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MaskInfo:
        """What `to_json` gave."""
        return cls(_sizes(value["shape"]), str(value["sha256"]))


@dataclass(frozen=True)
class FileInfo:
    """A file of the artifact."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact's manifest says."""

    path: Path
    #: SHA-256 over tensors, masks, ties, training flags and edits: equal for equal models.
    digest: str
    origin: Origin
    edits: tuple[StructuralEdit, ...]
    tensors: Mapping[str, TensorInfo]
    masks: Mapping[str, MaskInfo]
    #: Groups of names that hold one tensor; the first of each is in `tensors`.
    tied: tuple[tuple[str, ...], ...]
    #: The root's training flag, and the modules that have the other one.
    training: tuple[bool, tuple[str, ...]]
    files: Mapping[str, FileInfo]
    #: The data's transform, as in the recipe.
    transform: tuple[Mapping[str, Any], ...] = ()
    #: Names and versions of what made the artifact.
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_graph(self) -> bool:
        """Whether the model's own form is the plain-data graph."""
        return isinstance(self.origin, GraphOrigin) or any(isinstance(edit, Lower) for edit in self.edits)


def manifest_json(info: ArtifactInfo) -> dict[str, Any]:
    """The manifest's JSON, its own checksum included."""
    root, others = info.training
    content = {
        "format": FORMAT,
        "version": VERSION,
        "digest": info.digest,
        "origin": _origin_to_json(info.origin),
        "edits": [edit_to_json(edit) for edit in info.edits],
        "tensors": {name: each.to_json() for name, each in info.tensors.items()},
        "masks": {name: each.to_json() for name, each in info.masks.items()},
        "tied": [list(group) for group in info.tied],
        "training": {"root": root, "others": list(others)},
        "files": {name: {"bytes": each.bytes, "sha256": each.sha256} for name, each in info.files.items()},
        "transform": [dict(each) for each in info.transform],
        "provenance": dict(info.provenance),
    }
    return {**content, "checksum": _checksum(content)}


def read_info(path: str | Path) -> ArtifactInfo:
    """What an artifact says of itself; its tensors are neither read nor checked. Needs no torch.

    Raises:
        ArtifactError: when `path` is no artifact, its manifest is damaged, or its version is unknown.
    """
    folder = Path(path)
    content = _parsed(folder)
    if content.get("version") != VERSION:
        raise ArtifactError(
            f"{folder} has format version {content.get('version')}; this demiglace reads version {VERSION}",
            hint="install the demiglace that wrote it, or a newer one",
        )
    if content.pop("checksum", None) != _checksum(content):
        raise ArtifactError(f"{folder / MANIFEST} is damaged: its checksum differs", hint=DAMAGED)
    try:
        return _info(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is not a valid manifest: {error!r}", hint=DAMAGED) from None


def _parsed(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        reason = f"it has no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        raise ArtifactError(
            f"{folder} is not an artifact: {reason}", hint="give the folder that holds manifest.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{folder / MANIFEST} cannot be read: {error}", hint=DAMAGED) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{folder / MANIFEST} is not the manifest of a demiglace artifact", hint=DAMAGED)
    return content


def _info(folder: Path, content: Mapping[str, Any]) -> ArtifactInfo:
    flags = content["training"]
    return ArtifactInfo(
        path=folder,
        digest=str(content["digest"]),
        origin=_origin_from_json(content["origin"]),
        edits=tuple(edit_from_json(edit) for edit in content["edits"]),
        tensors={name: TensorInfo.from_json(each) for name, each in content["tensors"].items()},
        masks={name: MaskInfo.from_json(each) for name, each in content["masks"].items()},
        tied=tuple(tuple(str(name) for name in group) for group in content["tied"]),
        training=(bool(flags["root"]), tuple(str(name) for name in flags["others"])),
        files={
            name: FileInfo(int(each["bytes"]), str(each["sha256"])) for name, each in content["files"].items()
        },
        transform=tuple(dict(each) for each in content["transform"]),
        provenance=dict(content["provenance"]),
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _sizes(value: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in value):
        raise ValueError(f"not a list of sizes: {value}")
    return tuple(value)


def _origin_to_json(origin: Origin) -> dict[str, Any]:
    match origin:
        case SourceOrigin():
            return {"kind": "source", "name": origin.name, "options": dict(origin.options)}
        case CallerOrigin():
            tensors = {
                name: [dtype, list(shape)] for name, (dtype, shape) in origin.structure.tensors.items()
            }
            tied = [list(group) for group in origin.structure.tied]
            return {"kind": "caller", "type": origin.type, "tensors": tensors, "tied": tied}
        case GraphOrigin():
            return {"kind": "graph"}


def _origin_from_json(value: Mapping[str, Any]) -> Origin:
    match value:
        case {"kind": "source", "name": str(name), "options": dict(options)}:
            return SourceOrigin(name, options)
        case {"kind": "caller", "type": str(kind), "tensors": dict(tensors), "tied": [*tied]}:
            shapes = {name: (str(dtype), _sizes(shape)) for name, (dtype, shape) in tensors.items()}
            return CallerOrigin(kind, Structure(shapes, [tuple(group) for group in tied]))
        case {"kind": "graph"}:
            return GraphOrigin()
    raise ValueError(f"not an origin: {str(value)[:100]}")
