"""`export.openvino`: the model as OpenVINO's files, integers as integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.errors import GraphError
from demiglace.passes import Kind, PassSpec
from demiglace_exporters._file import FileConfig, FileExporter
from demiglace_exporters.runtimes import OPENVINO

if TYPE_CHECKING:
    from torch import nn

    from demiglace_exporters.translation import Translated


class OpenvinoExportConfig(FileConfig):
    """Write the model as OpenVINO's `.xml` and `.bin`, and compare them with PyTorch on real inputs.

    The way leads over the model that `export.onnx` writes: integers and scales are the same. Of
    `quantize.dynamic` the weights are kept; how their inputs are rounded is OpenVINO's to decide.
    """

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.xml$")] = "model.xml"
    """The name in the step's folder of the run directory; weights are beside it in a `.bin` file."""

    def words(self) -> str:
        return f"write {self.file}{' with the transform' if self.preprocess else ''}, compared with PyTorch"


class OpenvinoExporter(FileExporter[OpenvinoExportConfig]):
    """Writes an `.xml` and a `.bin` file."""

    runtime = OPENVINO
    # It computes the operators for that one by one, slower than floating point.
    dynamic = False

    @property
    def files(self) -> Sequence[str]:
        return (Path(self.config.file).with_suffix(".bin").name, self.config.file)

    def save(self, translated: Translated, path: Path) -> None:
        from demiglace_exporters.runtimes.openvino import library

        openvino = library()
        try:
            model = openvino.Core().read_model(model=translated.content())
        except RuntimeError as error:
            raise GraphError(f"OpenVINO cannot take the model: {_reason(error)}") from error
        openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, path: Path) -> nn.Module:
        from demiglace_exporters.runtimes.openvino import load

        return load(path)


def _reason(error: RuntimeError) -> str:
    """Which operator it was, where OpenVINO says so in its many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line.removeprefix("-- ") for line in lines if line.startswith("-- ")), lines[-1])


SPEC = PassSpec(
    "export.openvino",
    Kind.EXPORTER,
    OpenvinoExportConfig,
    "demiglace_exporters.openvino:OpenvinoExporter",
    '[[pass]]\nuse = "export.openvino"\n',
)
