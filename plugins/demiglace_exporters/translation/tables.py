"""Embeddings whose tables are integers: only the rows that are asked for become floating point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from demiglace.quantization import QTensor
from demiglace_exporters.translation.building import Site
from demiglace_exporters.translation.constants import tensor_of
from demiglace_exporters.translation.weights import held_by


def embedding(site: Site) -> None:
    """Rows of a table of integers."""
    held = held_by(site, (tensor_of(site.inputs["codes"]).shape[0], site.attribute("width")), 0)
    groups, indices, constants = held.scale.shape[1], site.inputs["indices"], site.constants
    rows, offset = _rows(site, held)
    rank = len(indices.shape)
    if groups > 1:
        split = constants.whole([*[0] * rank, groups, -1], site.name("groups"))
        rows = site.call("Reshape", rows, split)
    if held.zero_point is not None:
        rows = site.call("Sub", rows, _of_rows(site, held.zeros_of_groups.float() + offset, "zero_point"))
    elif offset:
        rows = site.call("Sub", rows, constants.number(offset, site.name("offset")))
    rows = site.call("Mul", rows, _of_rows(site, held.scale, "scale"))
    if groups > 1:
        rows = site.call("Reshape", rows, constants.whole([*[0] * rank, -1], site.name("width")))
    site.replace(rows)


def _of_rows(site: Site, values: Tensor, part: str) -> Any:
    """What each row that is asked for has of `[rows, groups]`, or of `[1, groups]` for all rows."""
    shape = values.unsqueeze(-1) if values.shape[1] > 1 else values
    if len(values) == 1:
        return site.constants.floats(shape[0], site.name(part))
    return site.call("Gather", site.constants.floats(shape, site.name(part)), site.inputs["indices"], axis=0)


def _rows(site: Site, held: QTensor) -> tuple[Any, int]:
    """The integers of the rows as real numbers, and what was added to them.

    Several integers stand in a byte where their bits allow it: those of equal parts of a row. Arithmetic on
    real numbers takes them apart, exactly and alike in all runtimes. They do not pick rows of tensors of 4
    bits, or make the whole table real for it; and OpenVINO 2026.4 rounds when it shifts bits to the right.
    """
    bits = 2 if held.bits <= 2 else 4
    together = 8 // bits
    indices, constants = site.inputs["indices"], site.constants
    if held.bits > 4 or held.shape[1] % together:
        table = constants.integers(held.integers, 8, site.name("integers"))
        return site.call("Cast", site.call("Gather", table, indices, axis=0), to=1), 0
    offset = 1 << (bits - 1)
    parts = (held.integers.to(torch.int32) + offset).chunk(together, dim=1)
    packed = torch.stack([part << bits * place for place, part in enumerate(parts)]).sum(0)
    table = constants.add(packed.to(torch.uint8).cpu().numpy(), site.name("integers"))
    left = site.call("Cast", site.call("Gather", table, indices, axis=0), to=1)
    taken = []
    for _ in parts[1:]:
        below, above = (constants.number(2.0**power, site.name("base")) for power in (-bits, bits))
        higher = site.call("Floor", site.call("Mul", left, below))
        taken.append(site.call("Sub", left, site.call("Mul", higher, above)))
        left = higher
    return site.call("Concat", *taken, left, axis=-1), offset
