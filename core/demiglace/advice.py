"""What `demiglace advise` says: which formats run fast on this machine, and what is missing. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demiglace.machine import PERMUTATION, Processor, compiler_hint
from demiglace.passes import RuntimeSpec

if TYPE_CHECKING:
    from demiglace.engine import Checked, Step
    from demiglace.plugins import Registry

State = Literal["fast", "works", "missing"]

_INT8 = ("int8 dot products", "int8 matrices")


@dataclass(frozen=True)
class Advice:
    """One format, or one step of a recipe, on this machine."""

    #: The format, or the step's id.
    what: str
    #: `fast`: faster than eager float32; `works`: it runs; `missing`: something has to be installed.
    state: State
    why: str
    #: What to install or to do instead; empty where nothing is missing.
    to_do: str = ""


def format_advice(machine: Processor, compiler: str | None, registry: Registry) -> Iterator[Advice]:
    """What each format will do here, the simplest first."""
    yield Advice("float32, eager", "works", "what everything else is compared with")
    yield _inductor(compiler)
    yield _bfloat16(machine)
    yield _eager_integers(machine)
    for spec in registry.runtimes.values():
        yield _runtime(spec, machine)
    yield Advice("few bits, weights alone", "works", "4 bits and less buy size and memory, not time")
    yield Advice(
        "zeros in float32, eager",
        "fast",
        "deploy.sparse leaves zeros out of linear layers where that is faster: it measures",
    )
    yield _zeros_of_integers(machine, compiler)


def _inductor(compiler: str | None) -> Advice:
    if compiler is None:
        return Advice("float32, compiled", "missing", "torch.compile needs a C++ compiler", compiler_hint())
    return Advice("float32, compiled", "fast", f"torch.compile with {compiler}")


def _bfloat16(machine: Processor) -> Advice:
    if machine.has("bfloat16"):
        return Advice("bfloat16", "fast", "the processor multiplies 16-bit floats: quantize.cast")
    why = "half the size; the processor has no instructions for it, so it is slower than float32"
    return Advice("bfloat16", "works", why)


def _eager_integers(machine: Processor) -> Advice:
    exact = "exact integers in PyTorch's own operators"
    if not machine.has(*_INT8):
        return Advice("int8, eager", "works", f"{exact}: for measuring accuracy, not speed")
    why = f"{exact}: quantize.dynamic gains on large linear layers, and loses on small ones"
    return Advice("int8, eager", "works", why)


def _zeros_of_integers(machine: Processor, compiler: str | None) -> Advice:
    what, how = "zeros in int8, eager", "deploy.sparse_int8 leaves zeros out of linear layers"
    if not all(map(machine.has, PERMUTATION)):
        return Advice(what, "works", f"layers compute with their zeros: {_cannot_permute(machine)}")
    if compiler is None:
        return Advice(what, "missing", f"{how}, and needs a C++ compiler", compiler_hint())
    return Advice(what, "fast", f"{how}: it measures")


def _cannot_permute(machine: Processor) -> str:
    """What the processor lacks for leaving out zeros of integers."""
    return f"the processor has no {' and no '.join(one for one in PERMUTATION if not machine.has(one))}"


def _runtime(spec: RuntimeSpec, machine: Processor) -> Advice:
    missing = spec.missing()
    if missing:
        why = f"needs {' and '.join(missing)}"
        return Advice(
            f"int8, {spec.name}", "missing", why, f"pip install '{spec.install or ' '.join(missing)}'"
        )
    if machine.has(*_INT8):
        has = " and ".join(one for one in _INT8 if machine.has(one))
        return Advice(f"int8, {spec.name}", "fast", f"the processor has {has}: {spec.exporter}")
    why = f"a quarter of the size; without int8 instructions the time gains little: {spec.exporter}"
    return Advice(f"int8, {spec.name}", "works", why)


def recipe_advice(
    checked: Checked, machine: Processor, compiler: str | None, registry: Registry
) -> Iterator[Advice]:
    """What the steps of a recipe lack here, and which of them will not make anything faster here."""
    steps = [*checked.steps, *checked.evaluations]
    steps += [inner for step in checked.steps for inner in step.participants]
    for step in steps:
        yield from _lacks(step, compiler, registry)
        yield from _slow(step, machine)


def _lacks(step: Step, compiler: str | None, registry: Registry) -> Iterator[Advice]:
    """Runtimes that the step exports to or measures, and the compiler, where they are missing."""
    named = getattr(step.config, "runtimes", ())
    for spec in registry.runtimes.values():
        missing = spec.missing() if spec.exporter == step.spec.name or spec.name in named else ()
        if missing:
            install = f"pip install '{spec.install or ' '.join(missing)}'"
            yield Advice(step.id, "missing", f"{step.spec.name} needs {' and '.join(missing)}", install)
    if compiler is None and _leaves_out_zeros(step):
        why = f"{step.spec.name} needs a C++ compiler; without it layers compute with their zeros"
        yield Advice(step.id, "missing", why, compiler_hint())
    if compiler is None and (getattr(step.config, "compile", False) or "inductor" in named):
        yield Advice(step.id, "missing", f"{step.spec.name} needs a C++ compiler", compiler_hint())


def _leaves_out_zeros(step: Step) -> bool:
    """Whether a step has integer layers leave out their zeros."""
    contract = step.config.contract()
    return "products.int8" in contract.needs and "weights.sparse" in contract.gives


def _slow(step: Step, machine: Processor) -> Iterator[Advice]:
    """What a step gives that this processor does not compute fast."""
    gives = step.config.contract().gives
    if "weights.bfloat16" in gives and not machine.has("bfloat16"):
        yield Advice(step.id, "works", "the processor has no instructions for bfloat16: smaller, and slower")
    if _leaves_out_zeros(step) and not all(map(machine.has, PERMUTATION)):
        yield Advice(step.id, "works", f"{_cannot_permute(machine)}: its layers compute with their zeros")
    if {"weights.int8", "activations.int8"} & gives and not machine.has(*_INT8):
        yield Advice(step.id, "works", "the processor has no int8 dot products: smaller, hardly faster")


def as_rows(advice: Sequence[Advice]) -> list[tuple[str, str, str]]:
    """Rows of a table: what, state, why and what to do."""
    return [(one.what, one.state, "; ".join(filter(None, (one.why, one.to_do)))) for one in advice]
