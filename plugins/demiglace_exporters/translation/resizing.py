"""Antialiased resizing as two matrix products: runtimes have it otherwise, or without the antialiasing."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from demiglace.errors import GraphError
from demiglace_exporters.translation.building import Site


def resized(site: Site) -> None:
    """Images `[n, c, h, w]` in another size: each row and each column is the same sum of others."""
    images = site.inputs["self"]
    height, width = images.shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise GraphError("images of any size cannot be resized in an ONNX file", hint="fix their size")
    rows = site.constants.floats(_matrix(site, height, 0), site.name("rows"))
    columns = site.constants.floats(_matrix(site, width, 1).t(), site.name("columns"))
    whole = images.dtype == ir.DataType.UINT8
    values = images if images.dtype == ir.DataType.FLOAT else site.call("Cast", images, to=1)
    # Torch resizes images of 8 bits along their width first, and rounds after each of both.
    values = _whole(site, site.call("MatMul", values, columns), whole)
    values = _whole(site, site.call("MatMul", rows, values), whole)
    site.replace(site.call("Cast", values, to=2) if whole else values)


def _whole(site: Site, values: Any, wanted: bool) -> Any:
    """Values as numbers of 8 bits, the middle rounded up; as they are where that is not wanted."""
    if not wanted:
        return values
    half, low, high = (site.constants.number(one, site.name("number")) for one in (0.5, 0, 255))
    return site.call("Clip", site.call("Floor", site.call("Add", values, half)), low, high)


def _matrix(site: Site, size: int, axis: int) -> Tensor:
    """What resizing does along one dimension, `[new size, size]`: torch's own, done to the identity."""
    operator = getattr(torch.ops.aten, site.node.op_type)
    new = site.attribute("output_size")[axis]
    scale = site.attribute(("scales_h", "scales_w")[axis])
    identity = torch.eye(size, dtype=torch.float64)[None, None]
    matrix: Tensor = operator(identity, [new, size], site.attribute("align_corners"), scale, None)
    return matrix[0, 0].to(torch.float32)
