"""`evaluate.latency`: how long one call takes, in several runtimes side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import Context, Evaluator, Kind, Metric, PassSpec, Problem
from demiglace_evaluators._comparing import Comparing

if TYPE_CHECKING:
    from demiglace.graph import Example, ModelGraph
    from demiglace.measure import Timing
    from demiglace_evaluators._runtimes import Precision, Running

Timings: TypeAlias = "Mapping[tuple[str, str], Timing]"
"""By runtime, and by whether it is the `model` or the `fp32` that it is compared with."""


class LatencyConfig(Comparing):
    """The time of one call in several runtimes, measured in turn, against the model in fp32.

    Each runtime is compared with eager fp32 and with its own fp32. All of it runs in this process, on the
    processor; what was pinned stands in `run.json`, and what each runtime really computed in int8. A model
    that is an exported file runs in its own runtime, which counts as `eager` here.
    """

    runtimes: list[str] = Field(default=["eager"], min_length=1)
    """`eager`; `inductor`, which is torch.compile with weights frozen; and runtimes of exported files, such
    as `onnx` and `openvino`, to which the model is exported for it."""
    batch_sizes: list[Annotated[int, Field(ge=1, le=65536)]] = Field(default=[1, 32], min_length=1)
    """Examples in a call."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the model's floating-point values are computed in; what it is compared with stays fp32."""
    rounds: Annotated[int, Field(ge=5, le=10000)] = 30
    """How often each is read, at most."""
    seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """For all readings at one batch size; five rounds are always made."""

    def words(self) -> str:
        sizes = ", ".join(map(str, self.batch_sizes))
        return f"the time of a call in {', '.join(self.runtimes)} at batch {sizes}, against fp32"

    def metrics(self) -> tuple[str, ...]:
        places = [(runtime, batch) for runtime in self.runtimes for batch in self.batch_sizes]
        return tuple(named(kind, *place) for place in places for kind in ("latency", *_SPEEDUPS))


_SPEEDUPS = ("speedup", "speedup_own")


def named(kind: str, runtime: str, batch: int) -> str:
    """A metric's name, such as `latency_eager_b32`."""
    return f"{kind}_{runtime}_b{batch}"


class Latency(Evaluator[LatencyConfig]):
    """Puts the model and its fp32 form to work in each runtime, and reads their times in turn.

    `latency_RUNTIME_bN` is the median of one call in seconds; `speedup_RUNTIME_bN` the median of eager fp32
    over it, `speedup_own_RUNTIME_bN` that of the same runtime's fp32.
    """

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        from demiglace.plugins import discover
        from demiglace_evaluators._runtimes import runtime_problems

        config = self.config
        options, precision = config.runtime_options, config.precision
        yield from runtime_problems(config.runtimes, options, model, discover(), precision)

    def measure(self, model: ModelGraph, context: Context) -> Mapping[str, Metric]:
        import torch

        from demiglace.training import evaluating, refuse
        from demiglace_evaluators._files import workplace

        refuse(self.preflight(model))
        if model.example is None:
            raise UsageError("latency needs an example input", hint="give [data], or example_inputs")
        threads = self.config.threads or torch.get_num_threads()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with evaluating(model.module, context.device), workplace() as folder:
                return self._measured(model, context, folder, threads)
        finally:
            torch.set_num_threads(before)
            torch.compiler.reset()

    def _measured(
        self, model: ModelGraph, context: Context, folder: Path, threads: int
    ) -> Mapping[str, Metric]:
        """Metrics of all batch sizes; figures and notes go to the context."""
        from demiglace.graph import resized

        at_work = self._at_work(model, context, folder, threads)
        example = _on_cpu(model)
        context.figures["settings"] = self._settings(threads)
        context.figures["ran"] = _told(at_work, resized(example, 2), context)
        context.figures["latency"] = rows = []
        metrics: dict[str, Metric] = {}
        for batch in self.config.batch_sizes:
            timings = self._timed(at_work, resized(example, batch), context)
            for runtime in self.config.runtimes:
                row = _row(runtime, batch, timings)
                rows.append(row)
                metrics |= _metrics(row)
                _say(row, context)
        return metrics

    def _at_work(
        self, model: ModelGraph, context: Context, folder: Path, threads: int
    ) -> dict[tuple[str, str], Running]:
        """The model and its fp32 in each runtime; eager fp32 too, where there is an fp32."""
        from demiglace_evaluators._reference import reference
        from demiglace_evaluators._runtimes import EAGER, Settings, put_to_work

        forms: dict[str, tuple[ModelGraph, Precision]] = {"model": (model, self.config.precision)}
        compared = reference(model, context, self.config.against)
        if compared is not None:
            forms["fp32"] = (compared, "fp32")
        wanted = [(runtime, form) for runtime in self.config.runtimes for form in forms]
        wanted += [] if compared is None else [(EAGER, "fp32")]
        found = {}
        for runtime, form in context.track(dict.fromkeys(wanted), "preparing"):
            graph, precision = forms[form]
            settings = Settings(threads, precision, self.config.runtime_options.get(runtime, {}))
            place = folder / f"{runtime}-{form}"
            found[runtime, form] = put_to_work(runtime, graph, context, place, settings)
        return found

    def _timed(
        self, at_work: Mapping[tuple[str, str], Running], example: Example, context: Context
    ) -> Timings:
        from demiglace.measure import in_turn

        calls = {place: lambda running=running: running.call(example) for place, running in at_work.items()}
        config, check = self.config, context.check_interrupt
        return in_turn(calls, rounds=config.rounds, seconds=config.seconds, check=check)

    def _settings(self, threads: int) -> dict[str, Any]:
        """What was pinned, and what the processor is."""
        import torch

        return {
            "threads": threads,
            "precision": self.config.precision,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }


def _on_cpu(model: ModelGraph) -> Example:
    if model.example is None or any(one.device.type != "cpu" for one in model.module.parameters()):
        raise UsageError("latency is measured on the processor", hint='set [run] device = "cpu"')
    return model.example


def _told(
    at_work: Mapping[tuple[str, str], Running], example: Example, context: Context
) -> dict[str, list[dict[str, str]]]:
    """What each runtime computes of the model, as it tells itself."""
    from demiglace_evaluators._ran import multiplies

    found = {}
    for (runtime, form), running in at_work.items():
        if form == "model":
            ran = running.ran(example)
            found[runtime] = [asdict(one) for one in ran]
            products = [one for one in ran if multiplies(one.operator)]
            integer = sum(one.precision == "int8" for one in products)
            context.note(f"{runtime} computes {integer} of {len(products)} matrix products in int8")
    return found


def _row(runtime: str, batch: int, timings: Timings) -> dict[str, Any]:
    mine, own = timings[runtime, "model"], timings.get((runtime, "fp32"))
    eager = timings.get(("eager", "fp32"))
    row: dict[str, Any] = {"runtime": runtime, "batch": batch, "model": asdict(mine)}
    if own is None or eager is None:
        return row
    speedups = {"speedup": eager.median / mine.median, "speedup_own": own.median / mine.median}
    return row | {"fp32": asdict(own), "eager_fp32": asdict(eager)} | speedups


def _metrics(row: Mapping[str, Any]) -> dict[str, Metric]:
    place = row["runtime"], row["batch"]
    speedups = {named(kind, *place): Metric(row[kind], True) for kind in _SPEEDUPS if kind in row}
    return {named("latency", *place): Metric(row["model"]["median"], False, "seconds")} | speedups


def _say(row: Mapping[str, Any], context: Context) -> None:
    """A line for the summary; a warning where something is slower than its fp32."""
    runtime = row["runtime"]
    low, median, high = (f"{1e3 * row['model'][key]:.3g}" for key in ("low", "median", "high"))
    where = f"{runtime}, batch {row['batch']}"
    fp32 = {"eager fp32": row.get("speedup"), f"{runtime} fp32": row.get("speedup_own")}
    known = {what: factor for what, factor in fp32.items() if factor is not None}
    compared = "".join(f", {factor:.2f} times as fast as {what}" for what, factor in known.items())
    context.note(f"{where}: {median} ms ({low} to {high}){compared}")
    slow = [f"{1 / factor:.2f} times the time of {what}" for what, factor in known.items() if factor < 1]
    if slow:
        context.warn(f"{where}: slower than floating point: {' and '.join(slow)}")


SPEC = PassSpec(
    "evaluate.latency",
    Kind.EVALUATOR,
    LatencyConfig,
    "demiglace_evaluators.latency:Latency",
    '[[pass]]\nuse = "evaluate.latency"\nruntimes = ["eager", "inductor"]\nbatch_sizes = [1, 32]\n',
)
