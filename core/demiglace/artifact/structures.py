"""Building the structure that an artifact's edits and tensors go into."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from demiglace.artifact.checked_json import DAMAGED
from demiglace.artifact.manifest import GRAPH, ArtifactInfo
from demiglace.errors import ArtifactError, DemiglaceError, SourceError
from demiglace.graph.edits import Json
from demiglace.graph.origins import CallerOrigin, SourceOrigin, Structure

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph.plain import PlainGraph

Build: TypeAlias = Callable[[], "nn.Module"]
"""Makes a structure; may be called on the meta device."""

Resolver: TypeAlias = Callable[[str, Mapping[str, Json]], Build]
"""From a source's registered name and options to what builds its structure."""

Model: TypeAlias = Union["nn.Module", Build]
"""A caller's own module, or what makes one."""

_LARGEST_GRAPH = 1 << 30  # bytes of its text

_SHOWN = 5  # differences that an error names


def built(
    info: ArtifactInfo, model: Model | None, resolve: Resolver | None, *, meta: bool = True
) -> nn.Module:
    """The structure before its edits; for an artifact in graph form, the graph.

    Args:
        info: the artifact.
        model: the caller's module or what makes it, for a `CallerOrigin`.
        resolve: finds the source, for a `SourceOrigin`.
        meta: whether a source, or the caller's factory, may build on the meta device.

    Raises:
        ArtifactError: when the structure cannot be had or is not the one that was saved.
    """
    match info.origin:
        case SourceOrigin(name, options) if not info.is_graph:
            return _from_source(info, name, options, resolve, meta)
        case CallerOrigin() if not info.is_graph and model is not None:
            return _from_caller(info, info.origin, model, meta)
        case CallerOrigin() if not info.has_graph:
            raise ArtifactError(
                f"{info.path} holds a model of the class {info.origin.type}, which it cannot build",
                hint="pass such a module or a function that makes one: "
                f"demiglace.load({str(info.path)!r}, model={info.origin.type.rpartition('.')[2]}(...))",
            )
    return _from_graph(info)


def _from_source(
    info: ArtifactInfo, name: str, options: Mapping[str, Json], resolve: Resolver | None, meta: bool
) -> nn.Module:
    if resolve is None:
        raise ArtifactError(
            f"{info.path} holds a model of the source {name!r}, which needs the registry of sources",
            hint="open it with demiglace.load",
        )
    try:
        build = resolve(name, options)
    except SourceError as error:
        raise _absent(info, name, error) from error
    try:
        return _quietly(build, "meta" if meta else "cpu")
    except DemiglaceError:
        raise
    except Exception as error:
        if meta:
            return _from_source(info, name, options, resolve, meta=False)
        raise ArtifactError(
            f"{info.path}: the source {name!r} failed to build the model: {error}",
            hint="the artifact's provenance lists the versions that it was saved with",
        ) from error


def _absent(info: ArtifactInfo, name: str, error: SourceError) -> DemiglaceError:
    """The error of a source that no plugin has, with the distribution that gave it to the run."""
    needed = info.provenance.get("source")
    if needed is None:
        return error
    return ArtifactError(
        f"{info.path} holds a model of the source {name!r}, which {needed} gives and no installed plugin has",
        hint=f"pip install '{needed}'",
    )


def _quietly(build: Build, device: str) -> nn.Module:
    """Build without drawing from the caller's random numbers."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device(device):
        return build()


def _from_caller(info: ArtifactInfo, origin: CallerOrigin, model: Model, meta: bool) -> nn.Module:
    from torch import nn

    module = model if isinstance(model, nn.Module) else _made(model, meta)
    if not isinstance(module, nn.Module):
        raise ArtifactError(
            f"model= gave a {type(module).__name__}", hint="give a torch.nn.Module or a factory"
        )
    different = origin.structure.differences(Structure.of(module))
    if different:
        more = [f"and {len(different) - _SHOWN} more"] if len(different) > _SHOWN else []
        raise ArtifactError(
            f"{info.path} was saved from a {origin.type}; the module given is another: "
            + "; ".join(different[:_SHOWN] + more),
            hint="give the module as it was before the run, with the same constructor arguments",
        )
    return module


def _made(build: Build, meta: bool) -> nn.Module:
    """A factory's module, without values where it can be had so: they would be a second copy of the model."""
    if meta:
        # What fails there, or warns that it copies nothing, is made again where tensors have values.
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            return _quietly(build, "meta")
    return _quietly(build, "cpu")


def _from_graph(info: ArtifactInfo) -> PlainGraph:
    from demiglace.graph.plain import from_json

    return from_json(_graph_file(info) if info.graph is None else info.graph)


def _graph_file(info: ArtifactInfo) -> str:
    path = info.path / GRAPH
    if GRAPH not in info.files:
        raise ArtifactError(f"{info.path} lists no {GRAPH}", hint=DAMAGED)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", hint=DAMAGED) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=DAMAGED) from error
    if hashlib.sha256(content).hexdigest() != info.files[GRAPH].sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 differs from the manifest's", hint=DAMAGED)
    return _unzipped(path, content)


def _unzipped(path: Path, content: bytes) -> str:
    stream = zlib.decompressobj(wbits=31)  # of a gzip file
    try:
        text = stream.decompress(content, _LARGEST_GRAPH)
        if not stream.eof:
            raise ArtifactError(f"{path} is cut off, or holds over {_LARGEST_GRAPH} bytes", hint=DAMAGED)
        return text.decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not a gzip file of text: {error}", hint=DAMAGED) from None


def has_meta(module: nn.Module) -> bool:
    """Whether a module or one of its plain attributes still holds a tensor without values."""
    import torch
    from torch.utils._pytree import tree_leaves

    held = (tree_leaves(list(vars(each).values())) for each in module.modules())
    return any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaves in held for leaf in leaves)
