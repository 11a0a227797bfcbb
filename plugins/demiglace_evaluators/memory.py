"""`evaluate.memory`: what a process takes to open the model and to answer once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import (
    Context,
    Evaluator,
    Kind,
    Metric,
    PassSpec,
    Problem,
    allowed_code,
)
from demiglace_evaluators._comparing import Comparing

if TYPE_CHECKING:
    from demiglace.graph import Example, ModelGraph

_PROBE = "from demiglace_evaluators._memory_probe import main; main()"


class MemoryConfig(Comparing):
    """The peak memory of opening the model and of one call, in a fresh process, against the model in fp32.

    Counted from where the libraries are loaded.
    """

    runtimes: list[str] = Field(default=["eager"], min_length=1)
    """`eager`, and runtimes of exported files such as `onnx` and `openvino`. Compiled code is left out: its
    peak would be the compiler's."""
    batch_sizes: list[Annotated[int, Field(ge=1, le=65536)]] = Field(default=[1], min_length=1)
    """Examples in the call."""

    def words(self) -> str:
        sizes = ", ".join(map(str, self.batch_sizes))
        return f"the peak memory of a call in {', '.join(self.runtimes)} at batch {sizes}, against fp32"

    def metrics(self) -> tuple[str, ...]:
        places = [(runtime, batch) for runtime in self.runtimes for batch in self.batch_sizes]
        return tuple(f"{kind}_{runtime}_b{batch}" for runtime, batch in places for kind in _KINDS)


_KINDS = ("memory", "memory_ratio")


class Memory(Evaluator[MemoryConfig]):
    """Saves or exports the model and its fp32 form, and has each opened and called in a process of its own.

    `memory_RUNTIME_bN` is the peak in bytes, `memory_ratio_RUNTIME_bN` its share of the peak of fp32 in the
    same runtime.
    """

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.plugins import discover
        from demiglace_evaluators._runtimes import INDUCTOR, runtime_problems

        others = [one for one in self.config.runtimes if one != INDUCTOR]
        yield from runtime_problems(others, self.config.runtime_options, model, discover())
        if INDUCTOR in self.config.runtimes:
            at = ("runtimes", self.config.runtimes.index(INDUCTOR))
            yield Problem("the peak of compiled code is its compiler's", at, 'leave "inductor" out')

    def measure(self, model: ModelGraph, context: Context) -> Mapping[str, Metric]:
        from demiglace.graph import resized
        from demiglace.training import refuse
        from demiglace_evaluators._files import workplace

        refuse(self.preflight(model))
        if model.example is None:
            raise UsageError("memory needs an example input", hint="give [data], or example_inputs")
        metrics: dict[str, Metric] = {}
        context.figures["memory"] = rows = []
        with workplace() as folder:
            for runtime in self.config.runtimes:
                jobs = self._jobs(runtime, model, context, folder)
                for batch in self.config.batch_sizes:
                    inputs = _written(resized(model.example, batch), folder)
                    found = {form: _answered(job | inputs, folder) for form, job in jobs.items()}
                    rows.append({"runtime": runtime, "batch": batch, **found})
                    metrics |= _judged(runtime, batch, found, context)
        return metrics

    def _jobs(
        self, runtime: str, model: ModelGraph, context: Context, folder: Path
    ) -> dict[str, dict[str, Any]]:
        """For the model and for its fp32, what a process has to open."""
        from demiglace_evaluators._reference import reference

        compared = reference(model, context, self.config.against)
        forms = {"model": model} | ({} if compared is None else {"fp32": compared})
        return {
            form: self._job(runtime, graph, context, folder / f"{runtime}-{form}")
            for form, graph in forms.items()
        }

    def _job(self, runtime: str, model: ModelGraph, context: Context, folder: Path) -> dict[str, Any]:
        import torch

        from demiglace.plugins import discover
        from demiglace_evaluators._files import exported, saved
        from demiglace_evaluators._runtimes import EAGER

        code = [str(path.resolve()) for path in allowed_code()]
        threads = self.config.threads or torch.get_num_threads()
        options = self.config.runtime_options.get(runtime, {})
        common = {"runtime": runtime, "threads": threads, "options": options, "code": code}
        if runtime == EAGER:
            return common | {"path": str(saved(model, folder)), "imports": ["demiglace.api"]}
        spec = discover().runtimes[runtime]
        # The runtime's own module first: it may see to how the others are loaded.
        needed = [spec.implementation.partition(":")[0], *spec.requires]
        return common | {"path": str(exported(runtime, model, context, folder)), "imports": needed}


def _written(example: Example, folder: Path) -> dict[str, Any]:
    """The inputs of a call as a file, and how they are handed in."""
    import torch
    from safetensors.torch import save_file

    args = {str(index): value for index, value in enumerate(example.args)}
    values = {**args, **example.kwargs}
    if not all(isinstance(one, torch.Tensor) for one in values.values()):
        raise UsageError("memory can be measured of models whose inputs are tensors")
    path = folder / "inputs.safetensors"
    save_file({name: one.detach().cpu().contiguous() for name, one in values.items()}, path)
    return {"inputs": str(path), "args": list(args), "kwargs": list(example.kwargs)}


def _answered(job: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """What a fresh process says of a job, in bytes.

    Raises:
        UsageError: when it cannot open the model or call it.
    """
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - our own code, in our own interpreter
        [sys.executable, "-c", _PROBE, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        raise UsageError(f"a process of its own cannot run the model in {job['runtime']}: {last}")
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _judged(
    runtime: str, batch: int, found: Mapping[str, Mapping[str, int]], context: Context
) -> dict[str, Metric]:
    place = f"{runtime}_b{batch}"
    peaks = {form: one["peak"] - one["before"] for form, one in found.items()}
    mine = peaks["model"]
    said, metrics = f"{mine / 1e6:.1f} MB at the peak", {f"memory_{place}": Metric(mine, False, "bytes")}
    if "fp32" in peaks:
        ratio = mine / max(peaks["fp32"], 1)
        said += f", {ratio:.2f} times that of fp32"
        metrics[f"memory_ratio_{place}"] = Metric(ratio, False)
    context.note(f"{runtime}, batch {batch}: {said}")
    return metrics


SPEC = PassSpec(
    "evaluate.memory",
    Kind.EVALUATOR,
    MemoryConfig,
    "demiglace_evaluators.memory:Memory",
    '[[pass]]\nuse = "evaluate.memory"\nbatch_sizes = [1, 32]\n',
)
