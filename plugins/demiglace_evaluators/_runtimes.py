"""A model at work in each of several runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demiglace.passes import Problem, Ran
from demiglace.recipe import did_you_mean
from demiglace_evaluators._reference import is_file

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import Example, ModelGraph
    from demiglace.passes import Context
    from demiglace.plugins import Registry

EAGER, INDUCTOR = "eager", "inductor"
Precision = Literal["fp32", "bf16"]


def runtime_problems(
    runtimes: Sequence[str],
    options: Mapping[str, Any],
    model: ModelGraph,
    registry: Registry,
    precision: Precision = "fp32",
) -> Iterator[Problem]:
    """Runtimes that are not known or lack something, and options for runtimes that are not asked for."""
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
    for name in set(runtimes) & set(registry.runtimes):
        if precision not in (can := registry.runtimes[name].precisions):
            message = f"the runtime {name!r} does not compute in {precision}"
            yield Problem(message, ("precision",), f"it computes in {', '.join(can)}: leave one of both out")
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
    from demiglace_evaluators._files import exported

    file = exported(runtime, model, context, folder)
    return _of_file(discover().open_file(runtime, file, **vars(settings)))


def _of_file(module: nn.Module) -> Running:
    told: Callable[[], Sequence[Ran]] = getattr(module, "ran", list)
    return Running(lambda example: module(*example.args, **example.kwargs), lambda _: told())
