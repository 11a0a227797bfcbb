"""Options of evaluators that compare a model in runtimes with its fp32; importable without torch."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from demiglace.passes import Config, Contract

RuntimeOptions: TypeAlias = dict[str, bool | int | float | str]
"""Options of one runtime by its own names."""


class Comparing(Config):
    """Where a model runs, and what it is compared with."""

    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Threads that compute, in each runtime; left out: as many as the run has."""
    against: Annotated[str, Field(min_length=1)] | None = None
    """What the model is compared with: a run directory, artifact or packed file, its weights in floating
    point, or an exported file. Left out: the model before the first pass, its weights in floating point;
    an exported file, or a graph that came with integers in it, is then compared with nothing."""
    runtime_options: dict[str, RuntimeOptions] = Field(default={})
    """Options of runtimes of files by their own names, `{ openvino = { NUM_STREAMS = 1 } }`."""

    def contract(self) -> Contract:
        return Contract.of(wants=("baseline",) if self.against is None else ())
