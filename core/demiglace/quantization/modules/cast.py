"""A model that computes in another floating-point dtype than its callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.data import mapped
from demiglace.quantization.modules.holder import dtype_of


class CastsInputs(nn.Module):
    """A model whose floating-point inputs are cast to one dtype, and its outputs to another.

    It keeps its own attributes, which may well be called `dtype` or `returns`.
    """

    inputs_cast_to: torch.dtype
    outputs_cast_to: torch.dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _cast((args, kwargs), self.inputs_cast_to)
        return _cast(super().forward(*args, **kwargs), self.outputs_cast_to)


def casting(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The same model with casts around its forward; its tensors are not touched.

    Args:
        old: any model.
        options: `computes` and `returns`, names of dtypes.
    """
    kind = type(type(old).__name__, (CastsInputs, type(old)), {})
    new: CastsInputs = object.__new__(kind)
    new.__dict__.update(vars(old))
    new.inputs_cast_to, new.outputs_cast_to = (dtype_of(options[name]) for name in ("computes", "returns"))
    return new


def _cast(values: Any, dtype: torch.dtype) -> Any:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return mapped(cast, values)
