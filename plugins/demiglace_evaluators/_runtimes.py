"""A model at work in each of several runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal

from demiglace.errors import PluginError, UsageError
from demiglace.passes import Problem, Ran
from demiglace.recipe import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import Example, ModelGraph
    from demiglace.passes import Context
    from demiglace.plugins import Registry

EAGER, INDUCTOR = "eager", "inductor"
Precision = Literal["fp32", "bf16"]


def runtime_problems(
    runtimes: Sequence[str], options: Mapping[str, Any], model: ModelGraph, registry: Registry
) -> Iterator[Problem]:
    """Runtimes that are not known or miss something, and options for runtimes that are not asked for."""
    from demiglace.training import compile_problems

    known = {EAGER, INDUCTOR, *registry.runtimes}
    for index, name in enumerate(runtimes):
        at = ("runtimes", index)
        if is_file(model) and name != EAGER:
            yield Problem("an exported file runs in its own runtime", at, f'write runtimes = ["{EAGER}"]')
        elif name not in known:
            yield Problem(f"there is no runtime {name!r}", at, did_you_mean(name, known, "runtimes"))
        elif name == INDUCTOR:
            yield from (
                replace(one, option=at, hint=_without(one.hint)) for one in compile_problems(INDUCTOR)
            )
        elif name != EAGER and (missing := registry.runtimes[name].missing()):
            hint = f"pip install '{registry.runtimes[name].install}', or leave it out"
            yield Problem(f"the runtime {name!r} needs {' and '.join(missing)}, not installed here", at, hint)
    for name in options:
        if name not in runtimes or name in {EAGER, INDUCTOR}:
            message = f"{name!r} is none of the runtimes that take options here"
            yield Problem(message, ("runtime_options", name), "name it in runtimes")


def _without(hint: str | None) -> str:
    """A hint to a compiler, for one who can do without it."""
    return (hint or "").partition(", or set")[0] + ', or leave "inductor" out'


@dataclass(frozen=True)
class Running:
    """A model in a runtime."""

    call: Callable[[Example], Any]
    #: What it runs in one call, after the runtime's own fusions.
    ran: Callable[[Example], Sequence[Ran]]


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for exported files, gone in the end."""
    folder = Path(mkdtemp(prefix="demiglace-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Settings:
    """How a runtime computes."""

    threads: int
    #: Of floating-point arithmetic.
    precision: Precision = "fp32"
    #: The runtime's own, by its own names.
    options: Mapping[str, Any] = field(default_factory=dict)


def put_to_work(
    runtime: str, model: ModelGraph, context: Context, folder: Path, settings: Settings
) -> Running:
    """A model in a runtime, ready to be called.

    Args:
        runtime: one that `runtime_problems` has nothing against.
        model: in eval mode.
        context: of the step.
        folder: where files go; made here.
        settings: how the runtime computes.
    """
    if is_file(model):
        return _of_file(model.module)
    if runtime == EAGER:
        return _eager(model.module, settings.precision)
    if runtime == INDUCTOR:
        return _compiled(model.module, settings.precision)
    return _exported(runtime, model, context, folder, settings)


def _eager(module: nn.Module, precision: Precision) -> Running:
    from demiglace_evaluators._ran import ran_eager

    def call(example: Example) -> Any:
        with _autocast(precision):
            return module(*example.args, **example.kwargs)

    return Running(call, lambda example: ran_eager(module, lambda: call(example)))


def _compiled(module: nn.Module, precision: Precision) -> Running:
    import torch

    from demiglace_evaluators._ran import ran_compiled

    # Freezing lets weights be packed for the processor once, as a deployed program has them.
    compiled = torch.compile(module, dynamic=False, options={"freezing": True})

    def call(example: Example) -> Any:
        with _autocast(precision):
            return compiled(*example.args, **example.kwargs)

    return Running(call, lambda example: ran_compiled(lambda: call(example)))


def _autocast(precision: Precision) -> Any:
    import torch

    return nullcontext() if precision == "fp32" else torch.autocast("cpu", torch.bfloat16)


def _exported(runtime: str, model: ModelGraph, context: Context, folder: Path, settings: Settings) -> Running:
    from demiglace.plugins import discover

    file = exported(runtime, model, context, folder)
    return _of_file(discover().open_file(runtime, file, **vars(settings)))


def _of_file(module: nn.Module) -> Running:
    told: Callable[[], Sequence[Ran]] = getattr(module, "ran", list)
    return Running(lambda example: module(*example.args, **example.kwargs), lambda _: told())


def exported(runtime: str, model: ModelGraph, context: Context, folder: Path) -> Path:
    """The file that the runtime's exporter makes of a model, in a folder made here."""
    from demiglace.plugins import discover

    registry = discover()
    spec = registry.passes.get(registry.runtimes[runtime].exporter)
    if spec is None:
        raise PluginError(f"the runtime {runtime!r} names no exporter that is installed")
    folder.mkdir()
    apart = replace(context, figures={}, notes=[], left_alone={}, folder=folder)
    written = registry.implementation(spec)(spec.config()).write(model, folder, apart)
    return folder / str(written["file"])


def saved(model: ModelGraph, folder: Path) -> Path:
    """A model as an artifact that opens in another process.

    Raises:
        UsageError: when only the caller's own class could build it.
        GraphError: when its structure is known from itself alone, and it cannot be traced.
    """
    from demiglace.artifact import CallerOrigin, GraphOrigin, save
    from demiglace.graph import ModelGraph
    from demiglace.graph.plain import lower, portable

    if model.origin is None:
        save(ModelGraph(lower(model)), folder, origin=GraphOrigin())
        return folder
    graph = portable(model)
    if isinstance(model.origin, CallerOrigin) and graph is None:
        raise UsageError(
            f"another process cannot build a {type(model.module).__name__}, and it cannot be traced",
            hint='name what makes it: [model] use = "python"',
        )
    save(model, folder, origin=model.origin, graph=graph)
    return folder


def is_file(model: ModelGraph) -> bool:
    """Whether the model is an exported file, which its runtime runs."""
    return hasattr(model.module, "ran")


def reference(model: ModelGraph, context: Context, against: str | None) -> ModelGraph | None:
    """What a model is compared with, in float32; `None` where nothing is known, which is said.

    Args:
        model: the model that is measured.
        context: of the step, whose model before the first pass is the default.
        against: the path of a saved model or an exported file.
    """
    from demiglace.quantization import weights_in_graph

    if against is not None:
        return _opened(against, model)
    started = context.baseline or model
    if is_file(started) or any(True for _ in weights_in_graph(started.module)):
        context.note("compared with nothing: name what the model was before it had integers under `against`")
        return None
    return in_floating_point(model, context)


def _opened(path: str, model: ModelGraph) -> ModelGraph:
    from demiglace.api import load
    from demiglace.graph import ModelGraph
    from demiglace.passes import allowed_code
    from demiglace.plugins import discover
    from demiglace.quantization import floating

    registry = discover()
    for name, spec in registry.runtimes.items():
        if path.endswith(spec.suffixes):
            return ModelGraph(registry.open_file(name, path).eval(), model.example)
    return ModelGraph(floating(load(path, allow_code=allowed_code())).eval(), model.example)


def in_floating_point(model: ModelGraph, context: Context) -> ModelGraph:
    """What a model is compared with: that before the first pass, with its weights in float32."""
    from demiglace.graph import ModelGraph
    from demiglace.quantization import floating

    started = context.baseline or model
    module = floating(started.module).eval()
    pairs = zip(module.modules(), started.module.modules(), strict=True)
    if any(type(one) is not type(other) for one, other in pairs):
        # Its edits would make integers of it again: only the module itself is what it is.
        return ModelGraph(module, model.example)
    return ModelGraph(module, model.example, dict(started.masks), list(started.edits), started.origin)
