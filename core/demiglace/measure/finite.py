"""Looking for NaN and infinity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demiglace.measure.footprint import chunks

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph


def first_nonfinite(model: ModelGraph) -> str | None:
    """The name of the first parameter with NaN or infinity, or buffer with NaN; `None` when there is none.

    Buffers may hold infinity: attention masks do.
    """
    for name, parameter in model.module.named_parameters():
        if not all(_finite(chunk, infinite=False) for chunk in chunks(parameter.detach())):
            return name
    for name, buffer in model.module.named_buffers():
        if not all(_finite(chunk, infinite=True) for chunk in chunks(buffer)):
            return name
    return None


def _finite(values: Tensor, *, infinite: bool) -> bool:
    """Whether there is no NaN, and no infinity unless `infinite` allows it."""
    import torch

    if values.numel() == 0 or not (values.is_floating_point() or values.is_complex()):
        return True
    if values.is_complex():
        values = torch.view_as_real(values)
    # NaN goes through minimum and maximum, in one pass and without a temporary.
    low, high = torch.aminmax(values)
    bad = torch.isnan(low) if infinite else ~(torch.isfinite(low) & torch.isfinite(high))
    return not bool(bad)
