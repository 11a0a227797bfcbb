"""What an artifact restores of a model, by hashes in place of values. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.artifact.atomic import canonical_json
from demiglace.artifact.edit_codec import edit_from_json, edit_to_json
from demiglace.graph.edits import StructuralEdit


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
            sizes(value["shape"]),
            str(value["sha256"]),
            None if stride is None else sizes(stride),
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
        return cls(sizes(value["shape"]), str(value["sha256"]))


@dataclass(frozen=True)
class State:
    """A model's tensors by their hashes, with everything else that an artifact restores."""

    #: By the first of each tensor's names.
    tensors: Mapping[str, TensorInfo]
    #: By parameter name.
    masks: Mapping[str, MaskInfo]
    #: Groups of names that hold one tensor; the first of each is in `tensors`.
    tied: tuple[tuple[str, ...], ...]
    #: The root's training flag, and the names of the modules whose flag is the other one.
    training: tuple[bool, tuple[str, ...]]
    #: Structural edits since the origin, in order.
    edits: tuple[StructuralEdit, ...]

    def to_json(self) -> dict[str, Any]:
        """As in the manifest."""
        root, others = self.training
        return {
            "tensors": {name: info.to_json() for name, info in self.tensors.items()},
            "masks": {name: info.to_json() for name, info in self.masks.items()},
            "tied": [list(group) for group in self.tied],
            "training": {"root": root, "others": list(others)},
            "edits": [edit_to_json(edit) for edit in self.edits],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> State:
        """What `to_json` gave."""
        flags = value["training"]
        return cls(
            {name: TensorInfo.from_json(each) for name, each in value["tensors"].items()},
            {name: MaskInfo.from_json(each) for name, each in value["masks"].items()},
            tuple(tuple(str(name) for name in group) for group in value["tied"]),
            (bool(flags["root"]), tuple(str(name) for name in flags["others"])),
            tuple(edit_from_json(edit) for edit in value["edits"]),
        )

    def digest(self) -> str:
        """SHA-256 of the state's canonical spelling: equal for equal models."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()


def sizes(value: Sequence[Any]) -> tuple[int, ...]:
    """A shape or strides out of JSON.

    Raises:
        ValueError: when it holds anything but integers from 0.
    """
    if not all(type(size) is int and size >= 0 for size in value):
        raise ValueError(f"not a list of sizes: {value}")
    return tuple(value)
