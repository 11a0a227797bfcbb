"""Built-in sources of models and data, one file each; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import Provides, SourceSpec
from demiglace_sources.lenet import LenetConfig
from demiglace_sources.mlp import MlpConfig
from demiglace_sources.mnist5k import Mnist5kConfig


@demiglace.hookimpl
def demiglace_sources() -> Sequence[SourceSpec]:
    """The sources of this plugin."""
    return [
        SourceSpec(
            "mlp",
            Provides.MODEL,
            MlpConfig,
            "demiglace_sources.mlp:MlpSource",
            '[model]\nuse = "mlp"\nwidths = [784, 256, 128, 10]\n',
        ),
        SourceSpec(
            "lenet",
            Provides.MODEL,
            LenetConfig,
            "demiglace_sources.lenet:LenetSource",
            '[model]\nuse = "lenet"\nvariant = "lenet-5"\n',
        ),
        SourceSpec(
            "mnist5k",
            Provides.DATA,
            Mnist5kConfig,
            "demiglace_sources.mnist5k:Mnist5kSource",
            '[data]\nuse = "mnist5k"\nbatch_size = 64\n',
        ),
    ]
