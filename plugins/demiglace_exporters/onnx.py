"""`export.onnx`: the model as an ONNX file, integers as integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.passes import Kind, PassSpec
from demiglace_exporters._file import FileConfig, FileExporter
from demiglace_exporters.runtimes import ONNX

if TYPE_CHECKING:
    from torch import nn

    from demiglace_exporters.translation import Translated


class OnnxExportConfig(FileConfig):
    """Write the model as an ONNX file, and compare it with PyTorch on real inputs, run by ONNX Runtime.

    Integer weights are stored as integers. Layers of `quantize.static` and `quantize.qat` stand between
    quantize-dequantize pairs, which runtimes fuse into integer operators, all of them after
    `quantize.edges`; those of `quantize.dynamic` take one range for all rows of their input.
    """

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.onnx$")] = "model.onnx"
    """The file's name in the step's folder of the run directory."""

    def words(self) -> str:
        return f"write {self.file}{' with the transform' if self.preprocess else ''}, compared with PyTorch"


class OnnxExporter(FileExporter[OnnxExportConfig]):
    """Writes one `.onnx` file."""

    runtime = ONNX

    @property
    def files(self) -> Sequence[str]:
        return (self.config.file,)

    def save(self, translated: Translated, path: Path) -> None:
        path.write_bytes(translated.content())

    def open(self, path: Path) -> nn.Module:
        from demiglace_exporters.runtimes.onnx import load

        return load(path)


SPEC = PassSpec(
    "export.onnx",
    Kind.EXPORTER,
    OnnxExportConfig,
    "demiglace_exporters.onnx:OnnxExporter",
    '[[pass]]\nuse = "export.onnx"\n',
)
