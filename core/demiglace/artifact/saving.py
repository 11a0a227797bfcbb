"""Writing a model to a folder."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.artifact.atomic import new_directory, write_json, writing
from demiglace.artifact.manifest import (
    GRAPH,
    MANIFEST,
    TENSORS,
    ArtifactInfo,
    FileInfo,
    manifest_json,
)
from demiglace.errors import ArtifactError
from demiglace.graph.origins import Origin

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.graph.plain import PlainGraph


def save(
    model: ModelGraph,
    folder: str | Path,
    *,
    origin: Origin,
    transform: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    graph: PlainGraph | None = None,
) -> ArtifactInfo:
    """Save a model as an artifact: the folder appears whole or not at all.

    Args:
        model: what to save; its tensors may be on any device.
        folder: where; an artifact that is there is replaced, its parent is made.
        origin: what its structure was before `model.edits`.
        transform: the data's transform, kept for those who use the model.
        provenance: names and versions of what made it; by default demiglace's and torch's.
        graph: the same model as a plain-data graph, so that it opens without the caller's class.

    Raises:
        ArtifactError: when a tensor cannot be stored, the disk is full, or `folder` holds something else.
    """
    from demiglace.artifact.snapshot import contents, graph_and_constants, state_of, tensor_info
    from demiglace.artifact.tensor_file import write_tensors

    target = Path(folder).resolve()
    _refuse_to_replace(target)
    plain, added = graph_and_constants(model, graph)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as fresh:
            file, hashes = write_tensors(fresh / TENSORS, {**contents(model), **added})
            files = {TENSORS: file} if plain is None else {TENSORS: file, GRAPH: _write(fresh / GRAPH, plain)}
            info = ArtifactInfo(
                path=target,
                origin=origin,
                state=state_of(model, hashes),
                constants={name: tensor_info(each, hashes[name]) for name, each in added.items()},
                is_graph=plain is model.module,
                files=files,
                transform=tuple(transform),
                provenance=versions() if provenance is None else provenance,
            )
            # Every tensor has an entry: white space would double what a small model takes beside its tensors.
            write_json(fresh / MANIFEST, manifest_json(info), indent=None)
    return info


def _refuse_to_replace(target: Path) -> None:
    """A folder that is no artifact is somebody's work."""
    if not target.exists() or (target / MANIFEST).exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise ArtifactError(f"{target} exists and is not an artifact", hint="give another folder")


def _write(path: Path, graph: PlainGraph) -> FileInfo:
    from demiglace.graph.plain import to_json

    # What unpacks a weight is a score of operators: as text, the graph of a small model would weigh on it.
    content = gzip.compress(to_json(graph).encode(), mtime=0)
    path.write_bytes(content)
    return FileInfo(len(content), hashlib.sha256(content).hexdigest())


def versions() -> dict[str, str]:
    """What made an artifact, as far as is known everywhere."""
    return {name: version(name) for name in ("demiglace", "torch")}
