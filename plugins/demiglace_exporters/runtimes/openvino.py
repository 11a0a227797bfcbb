"""OpenVINO files, run by OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from demiglace.errors import UsageError
from demiglace.passes import Ran
from demiglace_exporters.runtimes.file_module import FileModule

# As it is imported, openvino reports that to its maker, from a fork of this process, and leaves an identity
# in the user's home. It does without where this package is missing. What is loaded already stays as it is.
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16"}


class OpenvinoModule(FileModule):
    """An `.xml` file and the `.bin` beside it as a module."""

    runtime = "OpenVINO"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        precision: str = "fp32",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__({"file": path, "weights": path.with_suffix(".bin")}, threads)
        self.precision, self.options = precision, dict(options or {})

    def start(self, threads: int) -> Any:
        core = _core()
        model = core.read_model(model=self.content("file"), weights=self.content("weights"))
        settings = {
            # Unless told, it computes in bfloat16 where the processor can.
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        return core.compile_model(model, "CPU", settings | self.options)

    def compute(self, session: Any, inputs: Sequence[Any]) -> Sequence[Any]:
        outputs = session(list(inputs), share_inputs=True)
        return [outputs[at] for at in range(len(session.outputs))]

    def input_names(self, session: Any) -> list[set[str]]:
        return [set(one.names) for one in session.inputs]

    def input_shape(self) -> list[int | None]:
        shape = self.session.inputs[0].partial_shape
        return [one.get_length() if one.is_static else None for one in shape]

    def ran(self) -> list[Ran]:
        """Every operator as it is computed, with the names of what was fused into it."""
        found = []
        for node in self.session.get_runtime_model().get_ordered_ops():
            told = {key: str(node.rt_info[key].value) for key in node.rt_info}
            precision = told.get("runtimePrecision", "")
            name = told.get("originalLayersNames") or node.get_friendly_name()
            found.append(Ran(name, told.get("layerType", ""), _PRECISIONS.get(precision, precision)))
        return found


def library() -> Any:
    """The package openvino, which sends nothing anywhere."""
    import openvino

    return openvino


@cache
def _core() -> Any:
    """What compiles models, once for the life of the process.

    Its plugin for the CPU gives the thread that loads it a stack for signal handlers, and that of before
    back as it is unloaded. Of two plugins the first takes its memory away, and the second puts it back as
    the stack: the next signal that is handled would end the process.
    """
    return library().Core()


def load(
    path: Path,
    *,
    threads: int | None = None,
    precision: str = "fp32",
    options: Mapping[str, Any] | None = None,
) -> OpenvinoModule:
    """An OpenVINO file as a module.

    Args:
        path: of the `.xml` file; the `.bin` file lies beside it.
        threads: that compute.
        precision: of floating-point arithmetic, `fp32` or `bf16`; integers stay integers.
        options: OpenVINO's properties of a compiled model, by name.

    Raises:
        UsageError: for another precision.
        SourceError: a file cannot be read.
    """
    if precision not in _HINTS:
        raise UsageError(f"OpenVINO cannot compute in {precision}", hint=f"use one of {', '.join(_HINTS)}")
    return OpenvinoModule(path, threads, precision, options)
