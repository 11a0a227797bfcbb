"""Norms that only scale and shift, so that a cut of what they normalise over can be compared."""

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
    """While active, layer, group and RMS norms and batch norms in training take no mean or variance."""
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


def _per_channel(vector: Tensor | None, rank: int) -> Tensor | None:
    return None if vector is None else vector.view(1, -1, *[1] * (rank - 2))


def _layer_norm(given: Tensor, _: Any, weight: Tensor | None, bias: Tensor | None, __: float) -> Any:
    unused = given.new_zeros(())
    return _scaled(given, weight, bias).clone(), unused, unused


def _group_norm(given: Tensor, weight: Tensor | None, bias: Tensor | None, *_: Any) -> Any:
    rank, unused = given.dim(), given.new_zeros(())
    return _scaled(given, _per_channel(weight, rank), _per_channel(bias, rank)).clone(), unused, unused


def _batch_norm(
    given: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any
) -> Any:
    if not training:
        return aten.native_batch_norm(given, weight, bias, mean, var, training, *rest)
    return _group_norm(given, weight, bias)


_NEUTRAL: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm: _layer_norm,
    aten.native_group_norm: _group_norm,
    aten.native_batch_norm: _batch_norm,
}
