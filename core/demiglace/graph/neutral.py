"""Norms that only scale and shift, so that a cut of what they normalise over can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class NeutralNorms(TorchDispatchMode):
    """While active, layer, group and RMS norms and batch norms in training take no mean or variance."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        packet = getattr(func, "overloadpacket", None)
        neutral = _NEUTRAL.get(packet)
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


def _rms_norm(given: Tensor, _: Any, weight: Tensor | None, __: float | None) -> Any:
    return _scaled(given, weight, None).clone(), given.new_zeros(())


def _batch_norm(
    given: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any
) -> Any:
    if not training:
        return torch.ops.aten.native_batch_norm(given, weight, bias, mean, var, training, *rest)
    return _group_norm(given, weight, bias)


_NEUTRAL: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_layer_norm: _layer_norm,
    torch.ops.aten.native_group_norm: _group_norm,
    torch.ops.aten._fused_rms_norm: _rms_norm,
    torch.ops.aten.native_batch_norm: _batch_norm,
}
