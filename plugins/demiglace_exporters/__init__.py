"""Built-in exporters, one file each, named after its recipe name; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec
from demiglace_exporters import packed


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    return [packed.SPEC]
