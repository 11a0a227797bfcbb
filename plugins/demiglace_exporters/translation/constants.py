"""Values that the nodes of an ONNX graph read: constants in, tensors out."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


def tensor_of(value: Any) -> Tensor:
    """What a value of the graph holds that is known before it runs: a parameter, a buffer, a constant."""
    known = ir.convenience.get_const_tensor(value)
    if known is None:
        raise TypeError(f"{value.name!r} is not known before the model runs")
    return torch.from_numpy(np.array(known.numpy()))


class Constants:
    """Gives a graph constants, equal ones once."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self._known: dict[tuple[str, tuple[int, ...], bytes], Any] = {}

    def add(self, array: Array, name: str) -> Any:
        """A value that holds an array; one that is there already where it is the same."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._added(array, name)
        return self._known[key]

    def _added(self, array: Array, name: str) -> Any:
        number, free = 1, name
        while free in self.graph.initializers:
            number, free = number + 1, f"{name}_{number + 1}"
        tensor = ir.tensor(array, name=free)
        value = ir.Value(
            name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def number(self, value: float, name: str) -> Any:
        """A float32 scalar."""
        return self.add(np.array(value, np.float32), name)

    def whole(self, numbers: list[int], name: str) -> Any:
        """A vector of 64-bit integers, as shapes are."""
        return self.add(np.array(numbers, np.int64), name)

    def integers(self, tensor: Tensor, bits: int, name: str) -> Any:
        """Small integers: 4-bit ones two a byte, all others one a byte."""
        kind = ml_dtypes.int4 if bits <= 4 else np.int8
        return self.add(tensor.cpu().numpy().astype(kind), name)

    def floats(self, tensor: Tensor, name: str) -> Any:
        """Floating-point numbers as float32."""
        return self.add(tensor.detach().float().cpu().numpy(), name)
