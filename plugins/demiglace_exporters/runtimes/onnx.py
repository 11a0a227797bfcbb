"""ONNX files, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demiglace.errors import UsageError
from demiglace.passes import Ran
from demiglace_exporters.runtimes.file_module import FileModule

# As it is imported, onnxruntime reports that to its maker, and leaves an identity in the user's home and a
# file among the temporary ones. Whoever sets this decides otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_INTEGER = ("QLinear", "QGemm", "QAttention", "Integer", "DynamicQuantizeMatMul", "QMoE")
"""What the names of operators have that compute on integers."""


class OnnxModule(FileModule):
    """An ONNX file as a module."""

    runtime = "ONNX Runtime"

    def __init__(
        self, path: Path, threads: int | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        super().__init__({"file": path}, threads)
        self.options = dict(options or {})

    def start(self, threads: int) -> Any:
        return self._started(threads)

    def _started(self, threads: int, optimized: Path | None = None) -> Any:
        import onnxruntime as ort

        ort.disable_telemetry_events()  # which Windows collects
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3  # errors alone
        for key, value in self.options.items():
            settings.add_session_config_entry(key, value)
        if optimized is not None:
            settings.optimized_model_filepath = str(optimized)
        return ort.InferenceSession(self.content("file"), settings, providers=["CPUExecutionProvider"])

    def compute(self, session: Any, inputs: Sequence[Any]) -> Sequence[Any]:
        names = [one.name for one in session.get_inputs()]
        outputs: Sequence[Any] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    def input_names(self, session: Any) -> list[set[str]]:
        return [{one.name} for one in session.get_inputs()]

    def input_shape(self) -> list[int | None]:
        shape = self.session.get_inputs()[0].shape
        return [one if isinstance(one, int) else None for one in shape]

    def ran(self) -> list[Ran]:
        """Every operator of the graph that ONNX Runtime made of the file; needs the package onnx."""
        import onnx

        with TemporaryDirectory() as folder:
            file = Path(folder, "optimized.onnx")
            self._started(1, file)
            graph = onnx.load(file).graph
        return [Ran(node.name, node.op_type, _precision(node.op_type)) for node in graph.node]


def _precision(operator: str) -> str:
    return "int8" if any(part in operator for part in _INTEGER) else "fp32"


def load(
    path: Path,
    *,
    threads: int | None = None,
    precision: str = "fp32",
    options: Mapping[str, Any] | None = None,
) -> OnnxModule:
    """An ONNX file as a module.

    Args:
        path: of the file; weights that it keeps in further files are not found.
        threads: that compute.
        precision: `fp32` alone: the runtime computes as the file says.
        options: ONNX Runtime's session configuration entries.

    Raises:
        UsageError: for another precision.
        SourceError: the file cannot be read.
    """
    if precision != "fp32":
        raise UsageError(f"ONNX Runtime computes as the file says, not in {precision}", hint='use "fp32"')
    return OnnxModule(path, threads, options)
