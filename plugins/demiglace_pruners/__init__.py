"""Built-in pruners, one file each, named after its recipe name; importable without torch.

A file holds an algorithm whole: its options, its class, and the `SPEC` that announces it here.
"""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import CriterionSpec, PassSpec
from demiglace_pruners import (
    blocks,
    channels,
    finalize,
    heads,
    magnitude,
    neurons,
    nm,
    obs,
    quantile,
    random,
    structured_norm,
)
from demiglace_pruners.importance import CRITERIA


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [
        magnitude.SPEC,
        quantile.SPEC,
        random.SPEC,
        structured_norm.SPEC,
        nm.SPEC,
        obs.SPEC,
        finalize.SPEC,
        channels.SPEC,
        heads.SPEC,
        neurons.SPEC,
        blocks.SPEC,
    ]


@demiglace.hookimpl
def demiglace_criteria() -> Sequence[CriterionSpec]:
    """The criteria of this plugin."""
    return CRITERIA
