"""Linear layers that compute on integers and leave out the zeros of their weights, where a processor can."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from demiglace.graph.edits import Swap
from demiglace.quantization.modules.dynamic import DynamicLinear, IntegerLinear
from demiglace.quantization.modules.static import StaticLinear
from demiglace.quantization.zero_free import ZeroFree, without_zeros_problem


class LeavesOutZeros(IntegerLinear):
    """An integer layer that holds the same tensors and gives the same numbers, by another way.

    Its weight is put into the form for that at the first call, beside the integers that it holds. Traced,
    compiled, or on a machine that cannot do it, it is the layer that it was made of; of the last it warns.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        elsewhere = torch.compiler.is_compiling() or input.is_nested or input.device.type != "cpu"
        if elsewhere or input.shape[-1] != self.in_features:  # the ordinary layer refuses such inputs
            return super().forward(input)
        problem = without_zeros_problem()
        if problem is not None:
            _warn(problem)
            return super().forward(input)
        output: Tensor = torch.ops.demiglace.zero_free_linear(input.float(), *_prepared(self))
        return output.to(input.dtype)

    def input_range(self) -> Tensor | None:
        """Scale and zero point of the inputs, float32 `[2]`; `None` where each row has its own."""
        return None


@cache
def _warn(problem: str) -> None:
    """Say once that a model is slower here than it was made to be."""
    warnings.warn(f"layers of integers compute with their zeros here: {problem}", stacklevel=3)


class ZeroFreeDynamicLinear(LeavesOutZeros, DynamicLinear):
    """`DynamicLinear` without its zeros."""


class ZeroFreeStaticLinear(LeavesOutZeros, StaticLinear):
    """`StaticLinear` without its zeros."""

    def input_range(self) -> Tensor:
        return torch.stack([self.input_scale, self.input_zero_point]).float()


_FORMS: dict[type[nn.Module], type[LeavesOutZeros]] = {
    DynamicLinear: ZeroFreeDynamicLinear,
    StaticLinear: ZeroFreeStaticLinear,
}


def leaving_out_zeros(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The same layer, with the same tensors, that leaves out its zeros.

    Raises:
        TypeError: when it computes no matrix product on integers.
    """
    form = _FORMS.get(type(old))
    if form is None:
        raise TypeError("it is no linear layer that computes on integers")
    new: nn.Module = object.__new__(form)
    new.__dict__.update(vars(old))
    return new


def may_leave_out_zeros(layer: nn.Module) -> bool:
    """Whether `zero_free_swap` takes a layer."""
    return type(layer) in _FORMS


def zero_free_swap(name: str) -> Swap:
    """The edit that has a linear layer of integers leave out its zeros; it changes no tensor."""
    return Swap(name, "quantized.linear.zero_free", {}, {})


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A layer's tensors as the code for the processor takes them, and what they were made of."""

    made_of: list[tuple[int, int]]
    tensors: tuple[Tensor | None, ...]


_PREPARED: WeakKeyDictionary[LeavesOutZeros, _Prepared] = WeakKeyDictionary()
"""Not in the layers: it would be copied and saved with them."""


def _prepared(layer: LeavesOutZeros) -> tuple[Tensor | None, ...]:
    """The tensors of a layer, made again when one of its own was changed."""
    own = [one for one in (*layer._buffers.values(), *layer._parameters.values()) if one is not None]
    made_of = [(one.data_ptr(), 0 if one.is_inference() else one._version) for one in own]
    known = _PREPARED.get(layer)
    if known is None or known.made_of != made_of:
        _PREPARED[layer] = known = _Prepared(made_of, _of(layer))
    return known.tensors


def _of(layer: LeavesOutZeros) -> tuple[Tensor | None, ...]:
    weight, sums = layer.quantized("weight"), layer.weight_sums.float()
    held = ZeroFree.of(weight.integers)
    # To add -0.0 changes no number, not even -0.0.
    bias = torch.full_like(sums, -0.0) if layer.bias is None else layer.bias.detach().float()
    outputs = torch.stack([weight.scale.float().flatten().expand_as(sums), sums, bias])
    return layer.input_range(), outputs, held.begins, held.windows, held.steps
