"""Norms that only scale and shift, so that a cut of what they normalise over can be compared.

The real norm runs too, and its result is dropped: a shape that it refuses is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@contextmanager
def neutral_norms() -> Iterator[None]:
    """While active, layer and RMS norms, group norms of one group and batch norms in training take no mean.

    A group norm of several groups stays: whole groups are cut of it, which changes no mean. So a wrong
    number of groups shows.
    """
    with _RmsNorms(), _Norms():
        yield


class _RmsNorms(TorchFunctionMode):
    """RMS norm is taken apart into plain arithmetic before it is dispatched: it is met above that."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in {torch.nn.functional.rms_norm, torch.rms_norm, aten.rms_norm.default, aten.rms_norm}:
            return func(*args, **kwargs)
        func(*args, **kwargs)
        weight = args[2] if len(args) > 2 else kwargs.get("weight")
        return _scaled(args[0] if args else kwargs["input"], weight, None).clone()


class _Norms(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        neutral = _NEUTRAL.get(getattr(func, "overloadpacket", None))
        return func(*args, **(kwargs or {})) if neutral is None else neutral(*args)


def _scaled(given: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        given = given * weight
    return given if bias is None else given + bias


def _by_channel(given: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (given.dim() - 2))
    weight, bias = (None if one is None else one.view(shape) for one in (weight, bias))
    return _scaled(given, weight, bias).clone()


def _layer_norm(given: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    _, *statistics = aten.native_layer_norm(given, shape, weight, bias, eps)
    return _scaled(given, weight, bias).clone(), *statistics


def _group_norm(given: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Any:
    result, *statistics = aten.native_group_norm(given, weight, bias, *rest)
    groups = rest[3]
    return (result if groups > 1 else _by_channel(given, weight, bias)), *statistics


def _batch_norm(
    given: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any
) -> Any:
    result, *statistics = aten.native_batch_norm(given, weight, bias, mean, var, training, *rest)
    return (_by_channel(given, weight, bias) if training else result), *statistics


_NEUTRAL: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm: _layer_norm,
    aten.native_group_norm: _group_norm,
    aten.native_batch_norm: _batch_norm,
}
