"""Integer weights that floating-point operators read: dequantized where they are used."""

from __future__ import annotations

from typing import Any

from demiglace.quantization import QTensor, Scheme
from demiglace_exporters.translation.building import Site
from demiglace_exporters.translation.constants import tensor_of


def weight(site: Site) -> None:
    """A weight in floating point, made of its integers."""
    held = held_by(site, tuple(site.attribute("shape")), site.attribute("axis"))
    whole = held.scale.shape[1] == 1
    site.replace(_by_rows(site, held) if whole else _by_groups(site, held))


def held_by(site: Site, shape: tuple[int, ...], axis: int) -> QTensor:
    """The integer weight that a placeholder reads."""
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
