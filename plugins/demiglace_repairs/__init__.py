"""Built-in repairs: editors that make up, without training, for what the passes before them took away.

A file holds a repair whole: its options, its class, and the `SPEC` that announces it here. All are
importable without torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec
from demiglace_repairs import batchnorm, bias, least_squares


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [least_squares.SPEC, bias.SPEC, batchnorm.SPEC]
