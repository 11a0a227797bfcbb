"""Options of evaluators that compare a model in runtimes with its fp32; importable without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import Field

from demiglace.passes import Config, Contract
from demiglace.plugins import discover

RuntimeOptions: TypeAlias = dict[str, bool | int | float | str]
"""Options of one runtime by its own names."""


class Comparing(Config):
    """Where a model runs, and what it is compared with."""

    runtimes: list[str] = Field(default=["eager"], min_length=1)
    """Where the model runs."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Threads that compute, in each runtime; left out: as many as the run has."""
    against: Annotated[str, Field(min_length=1)] | None = None
    """What the model is compared with: a run directory, artifact or packed file, its weights in floating
    point, or an exported file. Left out: the model before the first pass, its weights in floating point;
    an exported file, or a graph that came with integers in it, is then compared with nothing."""
    runtime_options: dict[str, RuntimeOptions] = Field(default={})
    """Options of runtimes of files by their own names, `{ openvino = { NUM_STREAMS = 1 } }`."""

    def contract(self) -> Contract:
        needs = _needs_of_exporters(self.runtimes)
        return Contract.of(needs=needs, wants=("baseline",) if self.against is None else ())


def _needs_of_exporters(runtimes: Iterable[str]) -> tuple[str, ...]:
    """What the exporters need of a model that make its files for these runtimes."""
    registry = discover()
    names = [registry.runtimes[name].exporter for name in runtimes if name in registry.runtimes]
    contracts = [registry.passes[name].config().contract() for name in names if name in registry.passes]
    return tuple(sorted({need for contract in contracts for need in contract.needs}))
