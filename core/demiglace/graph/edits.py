"""Edits: every change that a pass may make to a model's structure or values, as plain data.

The set is closed and the core alone applies it, so a pass needs no code to restore its work, and a
saved model needs a plugin to load only for the type of a `Swap`. `Cut`, `SetAttr`, `Swap`, `Lower`, `Bypass`
and `Round` change the structure: an artifact stores them in order and replays them, or stores the plain-data
graph that they left. `Mask`, `Unmask`, `Write` and `Retype` change values, which an artifact stores as
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None


@dataclass(frozen=True)
class Cut:
    """Keep only some indices of one dimension of a parameter or buffer."""

    tensor: str
    dim: int
    #: Kept indices, ascending, at least one.
    kept: tuple[int, ...]

    @cached_property
    def index(self) -> Tensor:
        """The kept indices as int64 `[count]`, on the CPU."""
        import torch

        return torch.tensor(self.kept)


@dataclass(frozen=True)
class SetAttr:
    """Set a plain attribute of a module, such as `out_channels`."""

    module: str
    name: str
    value: Json


@dataclass(frozen=True)
class Swap:
    """Replace a module by one of a registered type, built from the old one and plain options."""

    module: str
    type: str
    options: Mapping[str, Json] = field(default_factory=dict)
    #: The new module's parameters and buffers by their own names; an artifact stores them with all others.
    tensors: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Lower:
    """Replace the module by its plain-data graph."""


@dataclass(frozen=True)
class Bypass:
    """Let a sum in the plain-data graph be one of its operands; what only the other needs goes."""

    #: Names of nodes; the operand may be an input.
    sum: str
    operand: str


@dataclass(frozen=True)
class Round:
    """In the plain-data graph, let values be 8-bit integers wherever they are read."""

    #: By the name of the node: the scale, and the integer from -128 to 127 that stands for zero.
    values: Mapping[str, tuple[float, int]]


@dataclass(frozen=True, eq=False)
class Mask:
    """Hold some weights of a parameter at zero from now on; joins with a mask that is there already."""

    tensor: str
    #: Boolean, of the parameter's shape: `True` where the weight is kept.
    keep: Tensor


@dataclass(frozen=True)
class Unmask:
    """Drop a parameter's mask: its zeros stay, as ordinary values."""

    tensor: str


@dataclass(frozen=True, eq=False)
class Write:
    """Give a parameter or buffer new values of the same shape and dtype."""

    tensor: str
    value: Tensor


@dataclass(frozen=True)
class Retype:
    """Give a parameter or buffer another floating-point dtype."""

    tensor: str
    #: The dtype's name, such as `bfloat16`.
    dtype: str


StructuralEdit: TypeAlias = Cut | SetAttr | Swap | Lower | Bypass | Round
Edit: TypeAlias = StructuralEdit | Mask | Unmask | Write | Retype
