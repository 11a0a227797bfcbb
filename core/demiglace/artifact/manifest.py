"""`manifest.json`: everything of an artifact but its tensors. Read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.artifact.checked_json import DAMAGED, CheckedJson
from demiglace.artifact.state import State, TensorInfo, sizes
from demiglace.errors import ArtifactError
from demiglace.graph.origins import CallerOrigin, GraphOrigin, Origin, SourceOrigin, Structure

MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
GRAPH = "graph.json.gz"
MASK_PREFIX = "mask:"
"""Before a parameter's name: the key of its bit-packed mask in the tensors file."""

_FILE = CheckedJson(MANIFEST, "artifact", "demiglace-artifact", 1)


@dataclass(frozen=True)
class FileInfo:
    """A file of the artifact."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact's manifest says."""

    path: Path
    origin: Origin
    state: State
    #: Tensors of the graph that the module does not hold.
    constants: Mapping[str, TensorInfo]
    #: Whether the structure is the plain-data graph beside the tensors, whatever the origin.
    is_graph: bool
    files: Mapping[str, FileInfo]
    #: The data's transform, as in the recipe.
    transform: tuple[Mapping[str, Any], ...] = ()
    #: Names and versions of what made the artifact.
    provenance: Mapping[str, Any] = field(default_factory=dict)
    #: The graph's JSON, for a packed file, which has no file beside it.
    graph: str | None = None

    @property
    def has_graph(self) -> bool:
        """Whether the plain-data graph is there, as the structure or as a way to open it."""
        return self.graph is not None or GRAPH in self.files

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Every stored tensor but the masks."""
        return {**self.state.tensors, **self.constants}

    @property
    def digest(self) -> str:
        """SHA-256 over tensors, masks, ties, flags and edits: equal for equal models."""
        return self.state.digest()


def manifest_json(info: ArtifactInfo) -> dict[str, Any]:
    """The manifest's JSON, its own checksum included."""
    content = {
        "digest": info.digest,
        "form": "graph" if info.is_graph else "module",
        "origin": origin_to_json(info.origin),
        "state": info.state.to_json(),
        "constants": {name: each.to_json() for name, each in info.constants.items()},
        "files": {name: {"bytes": each.bytes, "sha256": each.sha256} for name, each in info.files.items()},
        "transform": [dict(each) for each in info.transform],
        "provenance": dict(info.provenance),
    }
    return _FILE.sealed(content)


def read_info(path: str | Path) -> ArtifactInfo:
    """What an artifact says of itself; its tensors are neither read nor checked. Needs no torch.

    Raises:
        ArtifactError: when `path` is no artifact, its manifest is damaged, or its version is unknown.
    """
    folder = Path(path)
    content = _FILE.read(folder, "give the folder that holds manifest.json")
    try:
        return _info(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is not a valid manifest: {error!r}", hint=DAMAGED) from None


def _info(folder: Path, content: Mapping[str, Any]) -> ArtifactInfo:
    files = content["files"].items()
    return ArtifactInfo(
        path=folder,
        origin=origin_from_json(content["origin"]),
        state=State.from_json(content["state"]),
        constants={name: TensorInfo.from_json(each) for name, each in content["constants"].items()},
        is_graph={"graph": True, "module": False}[content["form"]],
        files={name: FileInfo(int(each["bytes"]), str(each["sha256"])) for name, each in files},
        transform=tuple(dict(each) for each in content["transform"]),
        provenance=dict(content["provenance"]),
    )


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """An origin as in the manifest."""
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


def origin_from_json(value: Mapping[str, Any]) -> Origin:
    """What `origin_to_json` gave.

    Raises:
        ValueError: when it is no origin.
    """
    match value:
        case {"kind": "source", "name": str(name), "options": dict(options)}:
            return SourceOrigin(name, options)
        case {"kind": "caller", "type": str(kind), "tensors": dict(tensors), "tied": [*tied]}:
            shapes = {name: (str(dtype), sizes(shape)) for name, (dtype, shape) in tensors.items()}
            return CallerOrigin(kind, Structure(shapes, [tuple(group) for group in tied]))
        case {"kind": "graph"}:
            return GraphOrigin()
    raise ValueError(f"not an origin: {str(value)[:100]}")
