"""The first layer of a file that gives something else than PyTorch does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from demiglace.data import Batch

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace_exporters._file import FileExporter
    from demiglace_exporters.translation import Translated


def first_departure(
    exporter: FileExporter[Any], translated: Translated, batch: Batch, folder: Path, tolerance: float
) -> str | None:
    """The qualified name of the first layer whose value departs; `None` where none does by itself.

    A copy of the file gives all values between its layers. Runtimes fuse less of it, so that it tells of a
    wrong translation, and not of a wrong fusion.
    """
    from demiglace_exporters._comparison import distance

    expected = _values(translated.program, batch)
    graph = translated.model.graph
    shown = [
        value
        for node in graph
        for value in node.outputs
        if value.name in expected and value not in graph.outputs
    ]
    before = list(graph.outputs)
    graph.outputs.extend(shown)
    try:
        exporter.save(translated, folder / f"values{exporter.runtime.suffixes[0]}")
    finally:
        del graph.outputs[len(before) :]
    found = batch.to("cpu").run(exporter.open(folder / f"values{exporter.runtime.suffixes[0]}"))
    for value, given in zip(shown, found[len(before) :], strict=True):
        if not distance(expected[value.name], given) <= tolerance:
            return translated.layers.get(value.name, "")
    return None


def _values(program: ExportedProgram, batch: Batch) -> dict[str, Tensor]:
    """What each call of a traced model gives, by its name, where that is floating point."""
    inputs = batch.inputs()
    given = [
        next(inputs) if spec.kind == InputKind.USER_INPUT else _held(program, str(spec.target))
        for spec in program.graph_signature.input_specs
    ]
    recorder = _Recorder(program.graph_module)
    with torch.no_grad():
        recorder.run(*given)
    return recorder.values


def _held(program: ExportedProgram, name: str) -> Any:
    return program.state_dict[name] if name in program.state_dict else program.constants[name]


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what its calls give."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.values[n.name] = value.detach().clone()
        return value
