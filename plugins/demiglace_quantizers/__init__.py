"""Built-in quantizers, one file each, named after its recipe name; importable without torch.

A file holds a pass whole: its options, its class, and the `SPEC` that announces it here.
"""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec
from demiglace_quantizers import cast, dynamic, edges, kmeans, qat, rate, smooth, static, weight_only


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [
        weight_only.SPEC,
        rate.SPEC,
        dynamic.SPEC,
        static.SPEC,
        edges.SPEC,
        smooth.SPEC,
        qat.SPEC,
        kmeans.SPEC,
        cast.SPEC,
    ]


@demiglace.hookimpl
def demiglace_roundings() -> Sequence[str]:
    """The modules that register this plugin's methods of rounding."""
    return ["demiglace_quantizers._methods"]
