"""Writing a model to a folder."""

from __future__ import annotations

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
from demiglace.artifact.origins import Origin
from demiglace.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

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
    from demiglace.artifact.state import State, contents, tensor_info
    from demiglace.artifact.tensor_file import write_tensors

    target = Path(folder)
    _refuse_to_replace(target)
    added = {} if graph is None else _only_in(graph, model)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as fresh:
            file, hashes = write_tensors(fresh / TENSORS, {**contents(model), **added})
            state = State.of(model, hashes)
            info = ArtifactInfo(
                path=target,
                digest=state.digest(),
                origin=origin,
                edits=state.edits,
                tensors={**state.tensors, **{name: tensor_info(added[name], hashes[name]) for name in added}},
                masks=state.masks,
                tied=state.tied,
                training=state.training,
                files={TENSORS: file, **_write_graph(fresh / GRAPH, model, graph)},
                transform=tuple(transform),
                provenance=_versions() if provenance is None else provenance,
            )
            write_json(fresh / MANIFEST, manifest_json(info))
    return info


def _refuse_to_replace(target: Path) -> None:
    """A folder that is no artifact is somebody's work."""
    if not target.exists() or (target / MANIFEST).exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise ArtifactError(f"{target} exists and is not an artifact", hint="give another folder")


def _only_in(graph: PlainGraph, model: ModelGraph) -> dict[str, Tensor]:
    """The graph's tensors that the module does not have: constants that tracing found."""
    from demiglace.artifact.state import named_tensors, stored_tensors

    names = {name for name, _ in named_tensors(model.module)}
    return {name: each for name, each in stored_tensors(graph).items() if name not in names}


def _write_graph(path: Path, model: ModelGraph, graph: PlainGraph | None) -> dict[str, FileInfo]:
    from demiglace.graph.plain import PlainGraph, to_json

    plain = model.module if isinstance(model.module, PlainGraph) else graph
    if plain is None:
        return {}
    content = to_json(plain).encode()
    path.write_bytes(content)
    return {GRAPH: FileInfo(len(content), hashlib.sha256(content).hexdigest())}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("demiglace", "torch")}
