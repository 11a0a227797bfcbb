"""Replaying an artifact's edits on its structure, and putting its tensors in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from demiglace.artifact.manifest import ArtifactInfo
from demiglace.errors import ArtifactError, GraphError

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def replayed(module: nn.Module, info: ArtifactInfo) -> Iterator[None]:
    """Replay the edits, run the block, and take the edits back when it raises.

    A plain-data graph is stored as its edits left it and gets none.

    Raises:
        ArtifactError: when an edit does not fit or the result has other tensors than were saved.
    """
    from demiglace.graph import ModelGraph, apply
    from demiglace.graph.plain import PlainGraph

    edits = () if isinstance(module, PlainGraph) else info.state.edits
    try:
        transaction = apply(ModelGraph(module), edits)
    except GraphError as error:
        raise _other_structure(info, str(error)) from error
    try:
        _check(module, info)
        yield
    except BaseException:
        transaction.rollback()
        raise
    transaction.commit()


def _check(module: nn.Module, info: ArtifactInfo) -> None:
    from demiglace.graph.names import named_tensors, tied_names
    from demiglace.graph.plain import PlainGraph

    stored, known = _stored_names(info), info.tensors
    for group in tied_names(module):
        if len({stored.get(name, name) for name in group}) > 1:
            raise _other_structure(info, f"{group[0]!r} and {group[1]!r} are one tensor")
    names = set()
    for name, tensor in named_tensors(module):
        saved = known.get(stored.get(name, name))
        if saved is None:
            raise _other_structure(info, f"{name!r} was not saved")
        if saved.shape != tuple(tensor.shape):
            raise _other_structure(
                info, f"{name!r} has shape {list(tensor.shape)}, saved was {list(saved.shape)}"
            )
        names.add(name)
    absent = [name for name in known if name not in names]
    # A graph leaves out what inference does not run; a module leaves out the graph's constants.
    if absent and not isinstance(module, PlainGraph) and not info.has_graph:
        raise _other_structure(info, f"it has no {absent[0]!r}")


def _other_structure(info: ArtifactInfo, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{info.path} does not fit the structure that was built: {reason}",
        hint="the artifact's provenance lists the versions that it was saved with",
    )


def _stored_names(info: ArtifactInfo) -> dict[str, str]:
    """Under which name each tied tensor is stored."""
    return {name: group[0] for group in info.state.tied for name in group}


def fill(module: nn.Module, info: ArtifactInfo, tensors: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer its stored tensor, and every module its training flag.

    A tensor that holds values keeps its identity and device; one on the meta device is replaced.
    """
    stored, saved = _stored_names(info), info.tensors
    placed: dict[int, tuple[Tensor, Tensor]] = {}  # the old tensor is kept so that its id stays its own
    for path, holder in list(module.named_modules(remove_duplicate=False)):
        for own in [*holder._parameters, *holder._buffers]:
            old = getattr(holder, own)
            if old is None:
                continue
            name = f"{path}.{own}" if path else own
            source = stored.get(name, name)
            if id(old) not in placed:
                placed[id(old)] = (old, _placed(old, tensors[source], saved[source].requires_grad))
            setattr(holder, own, placed[id(old)][1])
    root, others = info.state.training
    for path, each in module.named_modules():
        each.training = root != (path in others)


def _placed(old: Tensor, value: Tensor, requires_grad: bool) -> Tensor:
    from torch import nn

    if old.is_meta:
        new = nn.Parameter(value, requires_grad=False) if isinstance(old, nn.Parameter) else value
        return new.requires_grad_(requires_grad)
    old.grad = None
    old.data = value.to(old.device)
    return old.requires_grad_(requires_grad)
