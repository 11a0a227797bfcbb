"""What a saved model is, in the terms of contracts."""

from __future__ import annotations

from pathlib import Path

from demiglace.artifact.manifest import read_info
from demiglace.errors import ArtifactError
from demiglace.graph.edits import Swap
from demiglace.passes.contract import PRODUCTS_INT8, WEIGHTS_MASKED

_COMPUTE_ON_INTEGERS = frozenset(
    {
        *("quantized.linear.dynamic", "quantized.linear.static"),
        *("quantized.conv1d.static", "quantized.conv2d.static"),
    }
)
"""Swaps that put in layers which multiply integers."""


def facts_of(path: str | Path) -> frozenset[str]:
    """What passes may build on in a saved model beside what holds of every one; needs no torch.

    Where no manifest can be read without torch, of a packed file for one, all that may be: a recipe is not
    refused for what only opening the model tells.
    """
    try:
        state = read_info(path).state
    except ArtifactError:
        return frozenset({WEIGHTS_MASKED, PRODUCTS_INT8})
    swapped = {edit.type for edit in state.edits if isinstance(edit, Swap)}
    masked = {WEIGHTS_MASKED} if state.masks else set()
    return frozenset(masked | ({PRODUCTS_INT8} if swapped & _COMPUTE_ON_INTEGERS else set()))
