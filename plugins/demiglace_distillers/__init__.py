"""Built-in distillers, which take part in training; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec
from demiglace_distillers import features, logits


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [logits.SPEC, features.SPEC]
