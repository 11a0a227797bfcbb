"""Integer weights that floating-point operators read: dequantized where they are used."""

from __future__ import annotations

from typing import Any

from demiglace.quantization import QTensor, Scheme
from demiglace_exporters.translation.building import Site
from demiglace_exporters.translation.constants import tensor_of


def weight(site: Site) -> None:
    """A weight in floating point, made of its integers."""
    held = _held(site, tuple(site.attribute("shape")), site.attribute("axis"))
    whole = held.scale.shape[1] == 1
    site.replace(_by_rows(site, held) if whole else _by_groups(site, held))


def _held(site: Site, shape: tuple[int, ...], axis: int) -> QTensor:
    codes, scale = tensor_of(site.inputs["codes"]), tensor_of(site.inputs["scale"])
    zeros = None if site.inputs["zero_point"] is None else tensor_of(site.inputs["zero_point"])
    lone = len(scale) == 1 < len(codes)
    scheme = Scheme(site.attribute("bits"), zeros is None, site.attribute("group"), per_tensor=lone)
    return QTensor(codes, scale, zeros, shape, scheme, axis)


def _by_rows(site: Site, held: QTensor) -> Any:
    """A scale for each row, or one for all."""
    rest = [size for dim, size in enumerate(held.shape) if dim != held.axis]
    integers = held.integers.reshape(-1, *rest).movedim(0, held.axis).contiguous()
    scale, zeros = held.scale.flatten(), held.zeros_of_groups.flatten()
    if len(scale) == 1:
        scale, zeros = scale[0], zeros[0]
    return site.call("DequantizeLinear", *_constants(site, held, integers, scale, zeros), axis=held.axis)


def _by_groups(site: Site, held: QTensor) -> Any:
    """A scale for each group of a row: the weight is a matrix until it is floating point."""
    size = held.integers.shape[1] // held.scale.shape[1]
    given = _constants(site, held, held.integers, held.scale, held.zeros_of_groups)
    matrix = site.call("DequantizeLinear", *given, axis=1, block_size=size)
    if len(held.shape) == 2 and held.axis == 0:
        return matrix
    rest = [size for dim, size in enumerate(held.shape) if dim != held.axis]
    shape = site.constants.whole([len(held.codes), *rest], site.name("shape"))
    tensor = site.call("Reshape", matrix, shape)
    if held.axis == 0:
        return tensor
    order = list(range(1, len(held.shape)))
    order.insert(held.axis, 0)
    return site.call("Transpose", tensor, perm=order)


def _constants(site: Site, held: QTensor, integers: Any, scale: Any, zeros: Any) -> list[Any]:
    bits, constants = held.scheme.bits, site.constants
    return [
        constants.integers(integers, bits, site.name("integers")),
        constants.floats(scale, site.name("scale")),
        constants.integers(zeros, bits, site.name("zero_point")),
    ]


def embedding(site: Site) -> None:
    """Rows of a table of integers: only those asked for become floating point."""
    held = _held(site, (tensor_of(site.inputs["codes"]).shape[0], site.attribute("width")), 0)
    groups = held.scale.shape[1]
    indices, constants = site.inputs["indices"], site.constants
    # One byte an integer: runtimes do not pick rows of 4-bit tensors.
    table = constants.integers(held.integers, 8, site.name("integers"))
    rows = site.call("Cast", site.call("Gather", table, indices, axis=0), to=1)
    rank = len(indices.shape)
    if groups > 1:
        split = constants.whole([*[0] * rank, groups, -1], site.name("groups"))
        rows = site.call("Reshape", rows, split)
    for operator, values in (("Sub", held.zeros_of_groups), ("Mul", held.scale)):
        if operator == "Sub" and held.zero_point is None:
            continue
        shape = values.unsqueeze(-1) if groups > 1 else values
        lone = len(values) == 1
        given = constants.floats(shape[0] if lone else shape, site.name(operator.lower()))
        rows = site.call(operator, rows, given if lone else site.call("Gather", given, indices, axis=0))
    if groups > 1:
        rows = site.call("Reshape", rows, constants.whole([*[0] * rank, -1], site.name("width")))
    site.replace(rows)
