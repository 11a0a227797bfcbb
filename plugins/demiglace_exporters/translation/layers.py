"""Layers of ours as standard nodes: quantize-dequantize pairs around operators, integers as initializers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from demiglace.quantization import QTensor, Scheme, SparseWeight
from demiglace_exporters.translation.building import Site
from demiglace_exporters.translation.constants import tensor_of
from demiglace_exporters.translation.padding import padded_before

_LARGEST = 2.0**30  # of a bias's 32-bit integers


def rounded(site: Site) -> None:
    """A value as integers."""
    site.replace(site.rounded(site.inputs["values"], site.attribute("scale"), site.attribute("zero_point")))


def static_convolution(site: Site) -> None:
    """A convolution of integers."""
    padding = list(site.attribute("padding"))
    site.inputs["values"], before, after = padded_before(site.inputs["values"], len(padding))
    inputs, weight, bias = _static(site, axis=0)
    output = site.call(
        "Conv",
        *(inputs, weight, *bias),
        strides=site.attribute("stride"),
        pads=[one + more for one, more in zip([*padding, *padding], [*before, *after], strict=True)],
        dilations=site.attribute("dilation"),
        group=site.attribute("groups"),
    )
    site.replace(output)


def static_linear(site: Site) -> None:
    """A matrix product of integers."""
    shape = site.inputs["values"].shape
    if shape is not None and len(shape) == 2:
        inputs, weight, bias = _static(site, axis=0)
        site.replace(site.call("Gemm", inputs, weight, *bias, transB=1))
        return
    inputs, weight, _ = _static(site, axis=1)
    output = site.call("MatMul", inputs, weight)
    site.replace(_with_bias(site, output))


def dynamic_linear(site: Site) -> None:
    """A matrix product of integers, the inputs' range taken as they come: one range for all rows."""
    held = _weight(site)
    values = site.as_float(site.inputs["values"])
    integers, scale, zero = dynamic_quantized(site, values)
    weight = site.constants.integers(held.integers.t(), 8, site.name("weight"))
    product = site.call("MatMulInteger", integers, weight, zero)
    steps = site.constants.floats(_row_scales(held), site.name("weight_scale"))
    output = site.call("Mul", site.call("Cast", product, to=1), site.call("Mul", scale, steps))
    site.replace(_with_bias(site, output))


def dequantized_linear(site: Site) -> None:
    """A matrix product with integer weights; the runtime may round the inputs as it likes."""
    held = _weight(site)
    weight = site.call(
        "DequantizeLinear",
        site.constants.integers(held.integers, 8, site.name("weight")),
        site.constants.floats(_row_scales(held), site.name("weight_scale")),
        axis=0,
    )
    columns = site.call("Transpose", weight, perm=[1, 0])
    output = site.call("MatMul", site.as_float(site.inputs["values"]), columns)
    site.replace(_with_bias(site, output))


def sparse_linear(site: Site) -> None:
    """A matrix product with the whole weight, zeros included: the format has no other."""
    values = site.inputs["values"]
    nonzeros, columns, rows = (tensor_of(site.inputs[name]) for name in ("nonzeros", "columns", "rows"))
    held = SparseWeight(nonzeros, columns, rows, (len(rows) - 1, values.shape[-1]))
    weight = site.constants.floats(held.dequantize().t(), site.name("weight"))
    site.replace(_with_bias(site, site.call("MatMul", site.as_float(values), weight)))


def dynamic_quantized(site: Site, values: Any) -> tuple[Any, Any, Any]:
    """Integers, scale and zero point of values whose range is taken as they come."""
    integers, scale, zero = site.call_for("DynamicQuantizeLinear", 3, values)
    return integers, scale, zero


def _with_bias(site: Site, output: Any) -> Any:
    if site.inputs["bias"] is None:
        return output
    bias = site.constants.floats(tensor_of(site.inputs["bias"]), site.name("bias"))
    return site.call("Add", output, bias)


def _weight(site: Site) -> QTensor:
    """The weight of a layer that computes on integers."""
    codes, scale = tensor_of(site.inputs["codes"]), tensor_of(site.inputs["scale"])
    scheme = Scheme(site.attribute("bits"), per_tensor=len(scale) == 1 < len(codes))
    shape = site.attribute("shape") or (len(codes), site.inputs["values"].shape[-1])
    return QTensor(codes, scale, None, tuple(shape), scheme)


def _row_scales(held: QTensor) -> Tensor:
    """The scale of each row, `[rows]`."""
    return held.scale.float().flatten().expand(len(held.codes))


def _static(site: Site, axis: int) -> tuple[Any, Any, list[Any]]:
    """Inputs and weight as integers stand for them, and the bias in 32 bits, if there is one.

    Args:
        site: of a layer with a fixed range of inputs.
        axis: the dimension of the weight's rows, 0 or 1 of a matrix that is then transposed.
    """
    held = _weight(site)
    input_scale, input_zero = tensor_of(site.inputs["input_scale"]), tensor_of(site.inputs["input_zero"])
    bias = None if site.inputs["bias"] is None else tensor_of(site.inputs["bias"]).double()
    integers, scale = _fitting(held, float(input_scale), bias)
    integers = integers.view(held.shape)
    inputs = site.rounded(site.inputs["values"], float(input_scale), float(input_zero))
    matrix = integers if axis == 0 else integers.t().contiguous()
    weight = site.call(
        "DequantizeLinear",
        site.constants.integers(matrix, 8, site.name("weight")),
        site.constants.floats(scale, site.name("weight_scale")),
        site.constants.integers(torch.zeros(len(scale)), 8, site.name("weight_zero_point")),
        axis=axis,
    )
    if bias is None or axis:
        return inputs, weight, []
    steps = scale.double() * float(input_scale)
    whole = site.constants.add((bias / steps).round().to(torch.int32).numpy(), site.name("bias"))
    given = site.constants.floats(steps, site.name("bias_scale"))
    return inputs, weight, [site.call("DequantizeLinear", whole, given, axis=0)]


def _fitting(held: QTensor, input_scale: float, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weight's integers and scales, such that 32 bits hold each bias in steps of both scales.

    Where a bias is so large beside its weights that they do not, the weights' scale grows: what they add
    is then below the bias's own precision. A row of zeros gets the scale that tells its bias best.
    """
    integers, scale = held.integers, _row_scales(held).double()
    if bias is None:
        return integers, scale.float()
    least = bias.abs() / (input_scale * _LARGEST)
    dead = (integers == 0).all(1) & (bias != 0)
    fitting = torch.where(dead, least, torch.maximum(scale, least)).clamp_min(torch.finfo(torch.float32).tiny)
    shrunk = (integers * (scale / fitting).unsqueeze(1)).round()
    return torch.where((fitting > scale).unsqueeze(1), shrunk, integers).to(torch.int8), fitting.float()
