"""`export.torch`: the model as a program of PyTorch's own, compiled or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.errors import GraphError, UsageError
from demiglace.passes import Config, Context, Exporter, Kind, PassSpec, Problem

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace.graph import ModelGraph

_TOLERANCE = 1e-3
"""How far the program's outputs may be from the model's, as a share of the largest."""
_PICKLES = "holds pickles and machine code: open it only where you trust who wrote it; demiglace never does"


class TorchConfig(Config):
    """Write the model as a `.pt2` file, compiled by Inductor ahead of time or as an exported program.

    A compiled file runs without Python's interpreter on processors like this one: open it with
    `torch._inductor.aoti_load_package`. An exported program opens with `torch.export.load`. Both hold
    pickles, so demiglace writes them and never opens them.
    """

    file: Annotated[str, Field(pattern=r"^[\w][\w.-]*\.pt2$")] = "model.pt2"
    """The file's name in the step's folder of the run directory; ends in `.pt2`."""
    compile: bool = True
    """Whether Inductor compiles it; that needs a C++ compiler."""

    def words(self) -> str:
        how = "compiled by Inductor" if self.compile else "an exported program"
        return f"write {self.file}, {how}; such files hold pickles"


class TorchExporter(Exporter[TorchConfig]):
    """Traces the model, compares the program with it on the example, and writes it."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.training import compile_problems

        if self.config.compile:
            yield from (replace(one, option=("compile",)) for one in compile_problems("inductor"))

    def write(self, model: ModelGraph, folder: Path, context: Context) -> Mapping[str, object]:
        from demiglace.graph import ModelGraph
        from demiglace.quantization import with_zeros
        from demiglace.training import refuse
        from demiglace_exporters._whole import whole

        refuse(self.preflight(model))
        if model.example is None:
            raise UsageError("export.torch needs an example input", hint="give [data], or example_inputs")
        # Whoever opens the file has no operator of ours for weights without their zeros.
        model = ModelGraph(with_zeros(model.module), model.example)
        program = model.exported
        error = _difference(program, model)
        if not error <= _TOLERANCE:
            raise GraphError(
                f"the traced program departs from the model by {error:.2g} of its largest output",
                hint="look for branches on values, or state kept between calls, in the model's forward",
            )
        path = folder / self.config.file
        with whole(path) as fresh:
            _write(program, fresh, compiled=self.config.compile)
        context.note(f"{path.name} {_PICKLES}")
        return {
            "file": path.name,
            "bytes": path.stat().st_size,
            "compiled": self.config.compile,
            "difference": error,
        }


def _difference(program: ExportedProgram, model: ModelGraph) -> float:
    """The largest difference of outputs on the example, as a share of the largest output."""
    import torch

    from demiglace.data import leaves
    from demiglace.training import evaluating

    example: Any = model.example
    with evaluating(model.module):
        expected = leaves(model.module(*example.args, **example.kwargs))
        found = leaves(program.module()(*example.args, **example.kwargs))
    pairs = [
        (one.double(), other.double())
        for one, other in zip(expected, found, strict=True)
        if isinstance(one, torch.Tensor) and one.numel()
    ]
    largest = max((float(one.abs().max()) for one, _ in pairs), default=0.0) or 1.0
    return max((float((one - other).abs().max()) for one, other in pairs), default=0.0) / largest


def _write(program: ExportedProgram, path: Path, *, compiled: bool) -> None:
    import torch

    try:
        if compiled:
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        else:
            torch.export.save(program, path)
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        hint = "set compile = false to write the program uncompiled" if compiled else None
        raise GraphError(
            f"torch cannot write the program: {type(error).__name__}: {first}", hint=hint
        ) from error


SPEC = PassSpec(
    "export.torch",
    Kind.EXPORTER,
    TorchConfig,
    "demiglace_exporters.torch_program:TorchExporter",
    '[[pass]]\nuse = "export.torch"\ncompile = false\n',
)
