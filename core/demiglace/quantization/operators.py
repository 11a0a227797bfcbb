"""The arithmetic of integer layers as operators, so that a traced model keeps each of them whole.

A plain-data graph may call them by name, and exporters translate them. Layers call them while they are
traced, and otherwise the same functions without the detour. The operators are composed of torch's own,
which is what counters of operations see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from demiglace.quantization.integer import (
    CODE_HIGH,
    CODE_LOW,
    affine_linear,
    quantize_activation,
    quantize_rows,
)
from demiglace.quantization.qtensor import QTensor
from demiglace.quantization.scheme import Scheme

NAMESPACE = "demiglace"

_LIBRARY = torch.library.Library(NAMESPACE, "DEF")

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}


def rounded(values: Tensor, scale: float, zero_point: float) -> Tensor:
    """Values as 8-bit integers stand for them: what an integer between two layers keeps of a value.

    Args:
        values: floating point, of any shape.
        scale: positive.
        zero_point: an integer from -128 to 127.
    """
    integers = (values.float() / scale).round_().add_(zero_point).clamp_(CODE_LOW, CODE_HIGH)
    return integers.sub_(zero_point).mul_(scale).to(values.dtype)


def weight(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    shape: list[int],
    bits: int,
    group: int | None,
    axis: int,
    dtype: torch.dtype,
) -> Tensor:
    """The floating-point weight of packed integers; see `QTensor` for the arguments."""
    scheme = Scheme(bits, zero_point is None, group, per_tensor=len(scale) == 1 < len(codes))
    return QTensor(codes, scale, zero_point, tuple(shape), scheme, axis).dequantize(dtype)


def static_linear(
    values: Tensor,
    input_scale: Tensor,
    input_zero: Tensor,
    codes: Tensor,
    scale: Tensor,
    sums: Tensor,
    bias: Tensor | None,
    bits: int,
) -> Tensor:
    """A linear layer on int8 inputs of a fixed range.

    Args:
        values: `[..., k]`.
        input_scale: of the inputs, a scalar.
        input_zero: of the inputs, a scalar.
        codes: the weight's packed integers, `[m, bytes]`, symmetric.
        scale: the weight's scales, `[m, 1]` or `[1, 1]`.
        sums: of the weight's rows, `[m]`.
        bias: `[m]`.
        bits: of the weight.
    """
    integers = quantize_activation(_rows(values), input_scale, input_zero)
    return _linear(values, (integers, input_scale, input_zero), (codes, scale, sums, bias, bits))


def dynamic_linear(
    values: Tensor, codes: Tensor, scale: Tensor, sums: Tensor, bias: Tensor | None, bits: int
) -> Tensor:
    """A linear layer on int8 inputs, each row of its own range; see `static_linear`."""
    return _linear(values, quantize_rows(_rows(values)), (codes, scale, sums, bias, bits))


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).float()


def _linear(
    values: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    layer: tuple[Tensor, Tensor, Tensor, Tensor | None, int],
) -> Tensor:
    codes, scale, sums, bias, bits = layer
    held = QTensor(codes, scale, None, (len(codes), values.shape[-1]), Scheme(bits)).integers
    output = affine_linear(*inputs, held, scale.float().flatten(), sums.float())
    output = output if bias is None else output.add_(bias)
    return output.to(values.dtype).view(*values.shape[:-1], len(codes))


def static_convolution(
    values: Tensor,
    input_scale: Tensor,
    input_zero: Tensor,
    codes: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    shape: list[int],
    bits: int,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """A convolution on int8 inputs of a fixed range.

    It is carried by float32, which holds sums below 2**24 exactly. The zero point is taken off first, so
    that padding with 0 is padding with a real 0.

    Args:
        values: `[n, channels, length]` or `[n, channels, height, width]`.
        input_scale: of the inputs, a scalar.
        input_zero: of the inputs, a scalar.
        codes: the weight's packed integers, symmetric.
        scale: the weight's scales, `[outputs, 1]` or `[1, 1]`.
        bias: `[outputs]`.
        shape: of the weight.
        bits: of the weight.
        stride: as in `torch.nn.functional.conv2d`, one number a dimension.
        padding: likewise.
        dilation: likewise.
        groups: likewise.
    """
    integers = quantize_activation(values.float(), input_scale, input_zero).float() - input_zero
    held = QTensor(codes, scale, None, tuple(shape), Scheme(bits)).integers.float().view(shape)
    outputs = _CONVOLUTIONS[len(stride)](integers, held, None, stride, padding, dilation, groups)
    along = (-1, *[1] * len(stride))
    outputs = outputs * (input_scale * scale.float().view(along))
    return (outputs if bias is None else outputs + bias.view(along)).to(values.dtype)


def embedding(
    indices: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    width: int,
    bits: int,
    group: int | None,
    dtype: torch.dtype,
) -> Tensor:
    """Rows `[..., width]` of a table of packed integers, of which only those asked for are unpacked."""
    scheme = Scheme(bits, zero_point is None, group, per_tensor=len(scale) == 1 < len(codes))
    rows = QTensor(codes, scale, zero_point, (len(codes), width), scheme).rows(indices.flatten())
    return rows.dequantize(dtype).reshape(*indices.shape, width)


def sparse_linear(
    values: Tensor, bias: Tensor | None, nonzeros: Tensor, columns: Tensor, rows: Tensor
) -> Tensor:
    """A linear layer whose weight is held in compressed sparse rows.

    Args:
        values: `[..., k]`.
        bias: `[m]`.
        nonzeros: of the weight, row by row.
        columns: int32, that of each nonzero.
        rows: int32 `[m + 1]`: where each row begins among the nonzeros, and the end of the last.
    """
    inputs = values.reshape(-1, values.shape[-1]).t()
    shape = (len(rows) - 1, len(inputs))
    matrix = torch.sparse_csr_tensor(rows, columns, nonzeros, shape, check_invariants=False)
    output = matrix @ inputs if bias is None else torch.addmm(bias[:, None], matrix, inputs)
    return output.t().reshape(*values.shape[:-1], shape[0])


_Function = TypeVar("_Function", bound=Callable[..., Tensor])


def traceable(function: _Function) -> _Function:
    """The function itself, or while a model is traced the operator that it is there."""
    if not torch.compiler.is_exporting():
        return function
    operator: _Function = getattr(torch.ops.demiglace, function.__name__)
    return operator


_INPUTS = "Tensor values, Tensor input_scale, Tensor input_zero, Tensor codes, Tensor scale"
_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "rounded(Tensor values, float scale, float zero_point)": rounded,
    "weight(Tensor codes, Tensor scale, Tensor? zero_point, int[] shape, int bits, int? group, int axis, "
    "ScalarType dtype)": weight,
    "embedding(Tensor indices, Tensor codes, Tensor scale, Tensor? zero_point, int width, int bits, "
    "int? group, ScalarType dtype)": embedding,
    f"static_linear({_INPUTS}, Tensor sums, Tensor? bias, int bits)": static_linear,
    "dynamic_linear(Tensor values, Tensor codes, Tensor scale, Tensor sums, Tensor? bias, "
    "int bits)": dynamic_linear,
    f"static_convolution({_INPUTS}, Tensor? bias, int[] shape, int bits, int[] stride, int[] padding, "
    "int[] dilation, int groups)": static_convolution,
}
for _schema, _function in _OPERATORS.items():
    _LIBRARY.define(f"{_schema} -> Tensor")
    _LIBRARY.impl(_schema.partition("(")[0], _function, "CompositeImplicitAutograd")

# Not composed for whoever traces it: tracers know no matrices of compressed rows.
_LIBRARY.define(
    "sparse_linear(Tensor values, Tensor? bias, Tensor nonzeros, Tensor columns, Tensor rows) -> Tensor"
)
_LIBRARY.impl("sparse_linear", sparse_linear, "CompositeExplicitAutograd")


def _shape_of_sparse_linear(
    values: Tensor, bias: Tensor | None, nonzeros: Tensor, columns: Tensor, rows: Tensor
) -> Tensor:
    return values.new_empty(*values.shape[:-1], rows.shape[0] - 1)


torch.library.register_fake(f"{NAMESPACE}::sparse_linear", _shape_of_sparse_linear, lib=_LIBRARY)
