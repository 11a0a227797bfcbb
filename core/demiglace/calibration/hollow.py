"""What stands for a tensor that was not kept, and for all that is computed from it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from demiglace.data import leaves, mapped


class Touched(BaseException):
    """The elements of a hollow tensor are needed. No handler of errors in a model's code swallows it."""


class Hollow(Tensor):
    """A tensor of known shape, type and device without elements. What is computed from it is hollow too.

    Where elements would decide what is computed, or would be written into a tensor that has some, it raises
    `Touched`; what is no operator (`numpy`, `tolist`) may raise errors of its own.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[Hollow], value: Tensor, device: torch.device) -> Hollow:
        """Of the shape and type of a tensor."""
        made: Hollow = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=device
        )
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[Any, Any] | None = None,
    ) -> Any:
        given = (args, kwargs or {})
        if any(map(_full, tree_leaves(_written(func, *given)))):
            raise Touched
        device = next(one.device for one in tree_leaves(given) if isinstance(one, Hollow))
        try:
            found = func(*tree_map(_on_meta, given[0]), **tree_map(_on_meta, given[1]))
        except Exception as error:  # operators need elements in many ways
            raise Touched from error
        return tree_map(partial(_hollow, device), found)


def hollowed(value: Any) -> Any:
    """A module's output without the elements of its tensors."""
    return mapped(lambda one: _hollow(one.device, one) if isinstance(one, Tensor) else one, value)


def copied(value: Any) -> Any:
    """A module's output, whose elements nobody else can change."""
    return mapped(lambda one: one.clone() if _full(one) else one, value)


def known(value: Any) -> bool:
    """Whether all tensors of a module's output are known: none is inside an object of an unknown class."""
    return all(one is None or isinstance(one, Tensor | bool | int | float | str) for one in leaves(value))


def size_of(value: Any) -> int:
    """Bytes of the elements of modules' outputs."""
    return sum(one.nbytes for one in leaves(value) if _full(one))


def holds_hollow(value: Any) -> bool:
    """Whether some tensor is without elements."""
    return any(isinstance(one, Hollow) for one in leaves(value))


def alike(value: Any, other: Any) -> bool:
    """Whether two outputs of a model have the same elements, none of which is missing."""
    ones, others = list(leaves(value)), list(leaves(other))
    if len(ones) != len(others) or holds_hollow(ones) or not (known(ones) and known(others)):
        return False
    return all(
        torch.equal(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two
        for one, two in zip(ones, others, strict=True)
    )


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> list[Any]:
    """The arguments that an operator writes into."""
    told = func._schema.arguments
    named = dict(zip((one.name for one in told), args, strict=False)) | kwargs
    return [named.get(one.name) for one in told if one.is_write]


def _full(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, Hollow)


def _hollow(device: torch.device, value: Any) -> Any:
    return Hollow(value, device) if _full(value) else value


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, Hollow):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value.to("meta") if isinstance(value, Tensor) else value
