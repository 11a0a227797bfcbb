"""Built-in trainers; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import Kind, PassSpec
from demiglace_trainers.supervised import SupervisedConfig

_EXAMPLE = """\
[[pass]]
use = "train.supervised"
epochs = 3
optimizer = { name = "Adam", lr = 1e-3 }
scheduler = "CosineAnnealingLR"
"""


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [
        PassSpec(
            "train.supervised",
            Kind.TRAINER,
            SupervisedConfig,
            "demiglace_trainers.supervised:Supervised",
            _EXAMPLE,
        )
    ]
