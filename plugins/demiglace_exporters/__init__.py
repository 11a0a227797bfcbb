"""Built-in exporters, one file each, named after its recipe name, and what runs their files.

Importable without torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import PassSpec, RuntimeSpec, SourceSpec
from demiglace_exporters import (
    file_source,
    onnx,
    openvino,
    packed,
    runtimes,
    sparse,
    sparse_int8,
    state_dict,
    torch_program,
)


@demiglace.hookimpl
def demiglace_passes() -> Sequence[PassSpec]:
    """The passes of this plugin."""
    exporters = [packed.SPEC, onnx.SPEC, openvino.SPEC, state_dict.SPEC, torch_program.SPEC]
    return [*exporters, sparse.SPEC, sparse_int8.SPEC]


@demiglace.hookimpl
def demiglace_runtimes() -> Sequence[RuntimeSpec]:
    """The runtimes of this plugin."""
    return [runtimes.ONNX, runtimes.OPENVINO]


@demiglace.hookimpl
def demiglace_sources() -> Sequence[SourceSpec]:
    """The model sources of this plugin: exported files."""
    return file_source.SPECS
