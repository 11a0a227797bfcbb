"""Built-in evaluators; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec
from demiglace_evaluators import classification, latency, memory, sparsity


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [classification.SPEC, sparsity.SPEC, latency.SPEC, memory.SPEC]
