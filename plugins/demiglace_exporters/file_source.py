"""`onnx` and `openvino`: an exported file as a model, so that every evaluator works on what ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import Config, ModelSource, Provides, RuntimeSpec, SourceSpec
from demiglace_exporters.runtimes import ONNX, OPENVINO

if TYPE_CHECKING:
    from demiglace_exporters.runtimes.file_module import FileModule


class OnnxConfig(Config):
    """An ONNX file, run by ONNX Runtime. It can be evaluated, and not changed."""

    path: Annotated[str, Field(min_length=1)]
    """The file, relative to where demiglace is started."""

    def words(self) -> str:
        return f"the file {self.path}"


class OpenvinoConfig(Config):
    """An OpenVINO file, run by OpenVINO. It can be evaluated, and not changed."""

    path: Annotated[str, Field(min_length=1)]
    """The `.xml` file, relative to where demiglace is started; the `.bin` file lies beside it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What floating-point values are computed in; integers stay integers."""

    def words(self) -> str:
        return f"the file {self.path}, floating point computed in {self.precision}"


class _FileSource(ModelSource[Any]):
    """Opens a file by its runtime."""

    runtime: RuntimeSpec

    def build(self) -> FileModule:
        from importlib import import_module

        if missing := self.runtime.missing():
            raise UsageError(
                f"the model source {self.runtime.name!r} needs {' and '.join(missing)}, not installed here",
                hint=f"pip install '{self.runtime.install}'",
            )
        home, _, name = self.runtime.implementation.partition(":")
        settings = self.config.model_dump(exclude={"path"})
        opened: FileModule = getattr(import_module(home), name)(Path(self.config.path), **settings)
        return opened

    def example_shape(self) -> Sequence[int] | None:
        """The first input's shape without its batch; `None` where that is not all known."""
        _, *rest = self.build().input_shape() or [None, None]
        known = [size for size in rest if size is not None]
        return known if len(known) == len(rest) else None


class OnnxSource(_FileSource):
    """Opens an ONNX file."""

    runtime = ONNX


class OpenvinoSource(_FileSource):
    """Opens an OpenVINO file."""

    runtime = OPENVINO


SPECS = (
    SourceSpec(
        "onnx",
        Provides.MODEL,
        OnnxConfig,
        f"{__name__}:OnnxSource",
        '[model]\nuse = "onnx"\npath = "model.onnx"\n',
    ),
    SourceSpec(
        "openvino",
        Provides.MODEL,
        OpenvinoConfig,
        f"{__name__}:OpenvinoSource",
        '[model]\nuse = "openvino"\npath = "model.xml"\n',
    ),
)
