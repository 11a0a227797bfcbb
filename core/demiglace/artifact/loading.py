"""Opening an artifact: build the structure, replay the edits, put the tensors in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from demiglace.artifact.checked_json import DAMAGED
from demiglace.artifact.filling import fill, replayed
from demiglace.artifact.manifest import MASK_PREFIX, TENSORS, ArtifactInfo, read_info
from demiglace.artifact.state import TensorInfo
from demiglace.artifact.structures import Model, Resolver, built, has_meta
from demiglace.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph


@dataclass(frozen=True)
class Artifact:
    """An opened artifact. The module has its values, flags and memory formats, on the CPU or where the
    caller's module was.
    """

    info: ArtifactInfo
    module: nn.Module
    #: Boolean, by parameter name, `True` where the weight is kept.
    masks: Mapping[str, Tensor]

    @property
    def transform(self) -> tuple[Mapping[str, Any], ...]:
        """The data's transform, as in the recipe."""
        return self.info.transform

    def model_graph(self) -> ModelGraph:
        """The model as passes see it."""
        from demiglace.graph import ModelGraph

        return ModelGraph(
            self.module, masks=dict(self.masks), edits=list(self.info.state.edits), origin=self.info.origin
        )


def open_artifact(
    path: str | Path, *, model: Model | None = None, resolve: Resolver | None = None
) -> Artifact:
    """Open an artifact in any process, without data, pickle or network.

    Args:
        path: the artifact's folder, or a packed file.
        model: for a model that a caller handed in: such a module, or what makes one. Its tensors are
            replaced; on any error it is left as it was.
        resolve: finds registered sources; without it artifacts of a source cannot be opened.

    Raises:
        ArtifactError: when the artifact is damaged or of an unknown version, or the structure that is
            built is not the one that was saved.
    """
    info, tensors, masks = _from_file(Path(path)) if Path(path).is_file() else read_folder(path)
    module = built(info, model, resolve)
    with replayed(module, info):
        fill(module, info, tensors)
    if has_meta(module):
        # Some tensor is held outside parameters and buffers: only the CPU gives it a value.
        module = built(info, model, resolve, meta=False)
        with replayed(module, info):
            fill(module, info, tensors)
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return Artifact(info, module, {name: keep for name, keep in masks.items() if name in names})


def load(path: str | Path, *, model: Model | None = None, resolve: Resolver | None = None) -> nn.Module:
    """The module of an artifact; see `open_artifact`."""
    return open_artifact(path, model=model, resolve=resolve).module


_Content: TypeAlias = "tuple[ArtifactInfo, dict[str, Tensor], dict[str, Tensor]]"
"""What an artifact says of itself, its tensors and its masks."""


def _from_file(path: Path) -> _Content:
    from demiglace.artifact.packed import unpack

    content = unpack(path)
    tensors = {
        name: _in_memory_order(name, one, content.info.tensors[name]) for name, one in content.tensors.items()
    }
    return content.info, tensors, content.masks


def read_folder(path: str | Path) -> _Content:
    """What a folder's manifest says, its tensors and its masks by name, every byte checked.

    Raises:
        ArtifactError: when it is no artifact, or damaged.
    """
    from demiglace.artifact.tensor_file import read_tensors, unpacked

    info = read_info(path)
    if TENSORS not in info.files:
        raise ArtifactError(f"{info.path} lists no {TENSORS}", hint=DAMAGED)
    known, kept = info.tensors, info.state.masks
    expected = {name: (each.dtype, each.shape) for name, each in known.items()}
    for name, mask in kept.items():
        expected[MASK_PREFIX + name] = ("uint8", (-(-math.prod(mask.shape) // 8),))
    tensors = read_tensors(info.path / TENSORS, expected, info.files[TENSORS])
    masks = {name: unpacked(tensors.pop(MASK_PREFIX + name), mask.shape) for name, mask in kept.items()}
    for name, saved in known.items():
        tensors[name] = _in_memory_order(name, tensors[name], saved)
    return info, tensors, masks


def _in_memory_order(name: str, tensor: Tensor, saved: TensorInfo) -> Tensor:
    """The tensor with the strides that it had, channels last for one."""
    import torch

    from demiglace.artifact.snapshot import is_dense

    if saved.stride is None:
        return tensor
    if len(saved.stride) != tensor.dim() or not is_dense(saved.shape, saved.stride):
        raise ArtifactError(f"{name!r} has strides that do not fit its shape", hint=DAMAGED)
    return torch.empty_strided(saved.shape, saved.stride, dtype=tensor.dtype).copy_(tensor)
