"""What a packed file says of itself besides the bytes of its tensors, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demiglace.artifact.edit_codec import edit_from_json, edit_to_json
from demiglace.artifact.manifest import ArtifactInfo, origin_from_json, origin_to_json
from demiglace.artifact.packed.blocks import Fields
from demiglace.artifact.state import TensorInfo, sizes
from demiglace.graph.edits import StructuralEdit
from demiglace.graph.origins import Origin

_GRAD, _PARAMETER = 1, 2


@dataclass(frozen=True)
class Entry:
    """A stored tensor."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    requires_grad: bool = False
    #: Whether its elements are weights of the model: a parameter, or the integers of a quantized one.
    is_weight: bool = False
    fields: Fields | None = None
    #: Of the matrix whose nonzeros these are.
    nonzeros_of: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, info: TensorInfo, is_weight: bool, fields: Fields | None, nonzeros_of: tuple[int, ...] | None
    ) -> Entry:
        """The entry of a tensor of the module."""
        return cls(info.dtype, info.shape, info.stride, info.requires_grad, is_weight, fields, nonzeros_of)

    def info(self, sha256: str) -> TensorInfo:
        """As in a manifest."""
        return TensorInfo(self.dtype, self.shape, sha256, self.stride, self.requires_grad)

    def to_json(self) -> list[Any]:
        """Values in a fixed order; those at the end that are not set are left out."""
        flags = _GRAD * self.requires_grad + _PARAMETER * self.is_weight
        stride = None if self.stride is None else list(self.stride)
        fields = None if self.fields is None else [self.fields.bits, self.fields.columns]
        whole = None if self.nonzeros_of is None else list(self.nonzeros_of)
        values = [self.dtype, list(self.shape), flags, stride, fields, whole]
        while values[-1] is None:
            values.pop()
        return values

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        """What `to_json` gave."""
        dtype, shape, flags, stride, fields, whole = [*value, None, None, None][:6]
        if not isinstance(dtype, str) or flags not in range(4):
            raise ValueError(f"not a tensor: {value}")
        return cls(
            dtype,
            sizes(shape),
            None if stride is None else sizes(stride),
            bool(flags & _GRAD),
            bool(flags & _PARAMETER),
            None if fields is None else _fields(fields, sizes(shape)),
            None if whole is None else sizes(whole),
        )


def _fields(value: Any, shape: tuple[int, ...]) -> Fields:
    from demiglace.quantization.packing import packed_length

    bits, columns = sizes(value)
    if not 1 <= bits <= 8 or columns < 1 or len(shape) != 2 or shape[1] != packed_length(columns, bits):
        raise ValueError(f"not integers of {list(shape)}: {value}")
    return Fields(bits, columns)


@dataclass(frozen=True)
class Header:
    """Everything but the values of the tensors and the text of the graph."""

    origin: Origin
    is_graph: bool
    #: By the first of each tensor's names, in the order of the file.
    tensors: Mapping[str, Entry]
    #: Shapes of masks by parameter.
    masks: Mapping[str, tuple[int, ...]]
    tied: tuple[tuple[str, ...], ...]
    training: tuple[bool, tuple[str, ...]]
    edits: tuple[StructuralEdit, ...]
    constants: Mapping[str, TensorInfo] = field(default_factory=dict)
    #: Bytes of the graph's JSON, 0 for none.
    graph: int = 0
    transform: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, info: ArtifactInfo, entries: Mapping[str, Entry]) -> Header:
        """The header of an artifact with these entries for its tensors."""
        state = info.state
        return cls(
            info.origin,
            info.is_graph,
            entries,
            {name: mask.shape for name, mask in state.masks.items()},
            state.tied,
            state.training,
            state.edits,
            info.constants,
            len((info.graph or "").encode()),
            info.transform,
            info.provenance,
        )

    def to_json(self) -> dict[str, Any]:
        """As in the file."""
        return {
            "form": "graph" if self.is_graph else "module",
            "tensors": {name: entry.to_json() for name, entry in self.tensors.items()},
            "origin": origin_to_json(self.origin),
            "masks": {name: list(shape) for name, shape in self.masks.items()},
            "tied": self.tied,
            "training": self.training,
            "edits": [_edit_to_json(edit) for edit in self.edits],
            "constants": {name: each.to_json() for name, each in self.constants.items()},
            "graph": self.graph,
            "transform": [dict(each) for each in self.transform],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Header:
        """What `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: when it is no header.
        """
        root, others = value["training"]
        return cls(
            origin_from_json(value["origin"]),
            {"graph": True, "module": False}[value["form"]],
            {name: Entry.from_json(each) for name, each in value["tensors"].items()},
            {name: sizes(shape) for name, shape in value["masks"].items()},
            tuple(tuple(str(name) for name in group) for group in value["tied"]),
            (bool(root), tuple(str(name) for name in others)),
            tuple(_edit_from_json(edit) for edit in value["edits"]),
            {name: TensorInfo.from_json(each) for name, each in value["constants"].items()},
            sizes([value["graph"]])[0],
            tuple(dict(each) for each in value["transform"]),
            dict(value["provenance"]),
        )


_KEPT = "kept"


def _edit_to_json(edit: StructuralEdit) -> dict[str, Any]:
    """As in a manifest, but what a cut keeps as bits in hexadecimal: a third of the list's size."""
    value = edit_to_json(edit)
    if _KEPT in value:
        bits = sum(1 << index for index in value[_KEPT])
        value[_KEPT] = bits.to_bytes(bits.bit_length() // 8 + 1, "little").hex()
    return value


def _edit_from_json(value: Mapping[str, Any]) -> StructuralEdit:
    if _KEPT not in value:
        return edit_from_json(value)
    octets = bytes.fromhex(value[_KEPT])
    kept = [index for index in range(8 * len(octets)) if octets[index // 8] >> index % 8 & 1]
    return edit_from_json({**value, _KEPT: kept})
