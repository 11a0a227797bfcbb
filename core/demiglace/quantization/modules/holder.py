"""A module that holds weights as integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.modules.fake import trained
from demiglace.quantization.qtensor import QTensor
from demiglace.quantization.scheme import Scheme

CODES, SCALE, ZERO = "_codes", "_scale", "_zero_point"
"""What the buffers of a quantized weight add to its name."""


class Dequantized:
    """A quantized weight under its old name, as floating point.

    Code that reads `layer.weight` instead of calling the layer (fused attention, tied heads) computes with
    the quantized values without knowing it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, holder: QuantizedHolder | None, owner: type) -> Any:
        if holder is None:
            return self
        if self.name not in holder._schemes:
            return holder._parameters.get(self.name)
        return holder.quantized(self.name).dequantize(holder.compute_dtype)


class QuantizedHolder(nn.Module):
    """A copy of a layer whose weights are buffers: `weight_codes`, `weight_scale`, `weight_zero_point`.

    Everything else, the bias for one, is the old layer's own. Subclasses also inherit from the layer's
    class, whose forward finds the weight under its name.

    Args:
        old: the layer; its weights give shapes and device, their values are not looked at.
        options: for each weight's name those that `weight_options` gives.
    """

    #: The dimension of the weights' rows.
    axis = 0

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        nn.Module.__init__(self)
        old = trained(old)
        own = set(vars(self))
        self.__dict__.update({name: value for name, value in vars(old).items() if name not in own})
        self._parameters.update(old._parameters)
        self._buffers.update(old._buffers)
        self._modules.update(old._modules)
        self.training = old.training
        self._schemes: dict[str, tuple[tuple[int, ...], Scheme]] = {}
        for name, given in options["weights"].items():
            self._hold(name, given)

    def _hold(self, name: str, options: Mapping[str, Any]) -> None:
        weight = self._parameters.pop(name)
        if weight is None:
            raise ValueError(f"the layer has no {name!r}")
        scheme = Scheme(options["bits"], options["symmetric"], options["group"], options["per_tensor"])
        scales = dtype_of(options["scales"])
        empty = QTensor.empty(
            tuple(weight.shape), scheme, axis=self.axis, scales=scales, device=weight.device
        )
        self.compute_dtype = dtype_of(options["computes"])
        self._schemes[name] = (empty.shape, scheme)
        for suffix, value in ((CODES, empty.codes), (SCALE, empty.scale), (ZERO, empty.zero_point)):
            self.register_buffer(name + suffix, value)

    def quantized(self, name: str) -> QTensor:
        """A weight as integers."""
        shape, scheme = self._schemes[name]
        codes, scale, zero = (self._buffers[name + suffix] for suffix in (CODES, SCALE, ZERO))
        if codes is None or scale is None:
            raise ValueError(f"{name!r} has lost its buffers")
        return QTensor(codes, scale, zero, shape, scheme, self.axis)

    def quantized_weights(self) -> Iterator[tuple[str, QTensor]]:
        """Every quantized weight by its own name in this module: footprints count it by these."""
        for name in self._schemes:
            yield name, self.quantized(name)

    def extra_repr(self) -> str:
        schemes = {scheme.bits for _, scheme in self._schemes.values()}
        return f"{super().extra_repr()}, {'/'.join(map(str, sorted(schemes)))}-bit weight".lstrip(", ")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedHolder:
        super()._apply(fn, recurse)
        # Whoever reads `weight` sees the dtype that the model was moved to.
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        return self


def weight_tensors(name: str, weight: QTensor) -> dict[str, Tensor]:
    """The buffers of a quantized weight, by name."""
    tensors = {name + CODES: weight.codes, name + SCALE: weight.scale}
    return tensors if weight.zero_point is None else {**tensors, name + ZERO: weight.zero_point}


def weight_options(weight: QTensor, computes: torch.dtype) -> dict[str, Any]:
    """The plain options that make room for such a weight, to be dequantized to the dtype `computes`."""
    scheme = weight.scheme
    return {
        "bits": scheme.bits,
        "symmetric": scheme.symmetric,
        "group": scheme.group,
        "per_tensor": scheme.per_tensor,
        "scales": str(weight.scale.dtype).removeprefix("torch."),
        "computes": str(computes).removeprefix("torch."),
    }


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name such as `float16`.

    Raises:
        TypeError: when torch has none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is not a dtype")
    return dtype
