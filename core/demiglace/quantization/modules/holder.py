"""A module that holds weights as integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.quantization.modules.fused import keep_hooks
from demiglace.quantization.modules.trained import trained
from demiglace.quantization.operators import traceable, weight
from demiglace.quantization.qtensor import QTensor
from demiglace.quantization.scheme import Scheme
from demiglace.quantization.shared import SharedTensor
from demiglace.quantization.stored import StoredWeight


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
        return holder.dequantized(self.name, holder.compute_dtype)


class QuantizedHolder(nn.Module):
    """A copy of a layer whose weights are buffers: `weight_codes`, and `weight_scale` with
    `weight_zero_point`, or `weight_codebook`.

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
        keep_hooks(self, old)
        #: The weights without their memory.
        self._schemes: dict[str, StoredWeight] = {}
        for name, given in options["weights"].items():
            self._hold(name, given)

    def _hold(self, name: str, options: Mapping[str, Any]) -> None:
        weight = self._parameters.pop(name)
        if weight is None:
            raise ValueError(f"the layer has no {name!r}")
        shape = tuple(weight.shape)
        self.compute_dtype = dtype_of(options["computes"])
        self._schemes[name] = _memory(shape, options, self.axis, torch.device("meta"))
        for suffix, value in _memory(shape, options, self.axis, weight.device).tensors().items():
            self.register_buffer(name + suffix, value)

    def held(self, name: str) -> StoredWeight:
        """A weight as it is stored."""
        scheme = self._schemes[name]
        return scheme.holding({suffix: self._buffers[name + suffix] for suffix in scheme.tensors()})

    def quantized(self, name: str) -> QTensor:
        """A weight as integers with scales.

        Raises:
            TypeError: when it takes its values from a codebook.
        """
        weight = self.held(name)
        if not isinstance(weight, QTensor):
            raise TypeError(f"{name!r} holds no integers with scales but a {type(weight).__name__}")
        return weight

    def dequantized(self, name: str, dtype: torch.dtype) -> Tensor:
        """A weight as floating point."""
        held = self.held(name)
        if not isinstance(held, QTensor):
            return held.dequantize(dtype)
        bits, group = held.scheme.bits, held.scheme.group
        return traceable(weight)(
            held.codes, held.scale, held.zero_point, list(held.shape), bits, group, held.axis, dtype
        )

    def quantized_weights(self) -> Iterator[tuple[str, StoredWeight]]:
        """Every stored weight by its own name in this module: footprints count it by these."""
        for name in self._schemes:
            yield name, self.held(name)

    def extra_repr(self) -> str:
        schemes = {scheme.bits for scheme in self._schemes.values()}
        return f"{super().extra_repr()}, {'/'.join(map(str, sorted(schemes)))}-bit weight".lstrip(", ")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedHolder:
        super()._apply(fn, recurse)
        # Whoever reads `weight` sees the dtype that the model was moved to.
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        return self


def _memory(
    shape: tuple[int, ...], options: Mapping[str, Any], axis: int, device: torch.device
) -> StoredWeight:
    """Memory for a weight with these options, its values undefined."""
    if "entries" in options:
        values = dtype_of(options["values"])
        return SharedTensor.empty(shape, options["entries"], axis=axis, values=values, device=device)
    scheme = Scheme(options["bits"], options["symmetric"], options["group"], options["per_tensor"])
    return QTensor.empty(shape, scheme, axis=axis, scales=dtype_of(options["scales"]), device=device)


def weight_tensors(name: str, weight: StoredWeight) -> dict[str, Tensor]:
    """The buffers of a stored weight, by name."""
    return {name + suffix: tensor for suffix, tensor in weight.tensors().items()}


def weight_options(weight: StoredWeight, computes: torch.dtype) -> dict[str, Any]:
    """The plain options that make room for such a weight, to be dequantized to the dtype `computes`."""
    return {**weight.options(), "computes": str(computes).removeprefix("torch.")}


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name such as `float16`.

    Raises:
        TypeError: when torch has none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is not a dtype")
    return dtype
