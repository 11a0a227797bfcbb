"""All hooks of demiglace. A plugin implements any of them with `@demiglace.hookimpl`.

A plugin is a module named by an entry point of the group `demiglace`:

    [project.entry-points.demiglace]
    acme = "acme_passes"

Every hook takes no argument, is called once, at the first need, and returns a list. Nothing that is
imported on the way may import torch: specs name the implementing class as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pluggy

from demiglace.passes.spec import CriterionSpec, PassSpec, RuntimeSpec, SourceSpec

PROJECT = "demiglace"
"""The pluggy project name and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def demiglace_passes() -> Sequence[PassSpec]:  # type: ignore[empty-body]
    """The passes that this plugin gives.

    Two plugins that give one name are an error that names both distributions.

        @demiglace.hookimpl
        def demiglace_passes():
            return [PassSpec("acme.round", Kind.EDITOR, RoundConfig, "acme_passes.round:Round")]
    """


@hookspec
def demiglace_sources() -> Sequence[SourceSpec]:  # type: ignore[empty-body]
    """The sources of models and data that this plugin gives.

    @demiglace.hookimpl
    def demiglace_sources():
        return [SourceSpec("acme-net", Provides.MODEL, NetConfig, "acme_passes.net:Net")]
    """


@hookspec
def demiglace_criteria() -> Sequence[CriterionSpec]:  # type: ignore[empty-body]
    """The criteria by which `importance` of structural pruners may rank units.

    @demiglace.hookimpl
    def demiglace_criteria():
        return [CriterionSpec("acme-size", "acme_passes.size:size")]

    # acme_passes/size.py
    def size(group, statistics):
        return sum(statistics.rows(one).abs().amax(1) for one in group.slices)
    """


@hookspec
def demiglace_runtimes() -> Sequence[RuntimeSpec]:  # type: ignore[empty-body]
    """What runs exported files as models, so that every evaluator can measure the file that ships.

    @demiglace.hookimpl
    def demiglace_runtimes():
        return [RuntimeSpec("acme", (".acme",), "acme_passes.runtime:load", requires=("acme_engine",))]

    # acme_passes/runtime.py
    def load(path, *, threads=None, precision="fp32", options={}):
        return AcmeModule(path, threads)  # an nn.Module
    """


@hookspec
def demiglace_rules() -> Sequence[str]:  # type: ignore[empty-body]
    """Modules that give operators their rules, so that structures can be removed on both sides of them.

    They are imported, and may import torch, when a recipe is planned. An operator has one rule; one that has
    none keeps everything that it touches.

        @demiglace.hookimpl
        def demiglace_rules():
            return ["acme_passes.rules"]

        # acme_passes/rules.py
        from demiglace.graph import Call, Value, rule

        @rule("acme.scale")
        def scaled(call: Call) -> Value:
            return call["x"]  # the result has the axes of the argument `x`
    """


@hookspec
def demiglace_roundings() -> Sequence[str]:  # type: ignore[empty-body]
    """Modules that register methods of rounding, which `quantize.weight_only` then takes as its `method`.

    They are imported, and may import torch, when a recipe is planned. A method has one name.

        @demiglace.hookimpl
        def demiglace_roundings():
            return ["acme_passes.roundings"]

        # acme_passes/roundings.py
        from demiglace.quantization import QTensor, Rounding, round_weight, rounding_method

        @rounding_method("acme")
        def acme(task: Rounding) -> QTensor:
            return round_weight(task.weight, task.scheme, clip=True)
    """


@hookspec
def demiglace_recipes() -> Sequence[Path]:  # type: ignore[empty-body]
    """Folders whose `*.toml` files `demiglace run recipe:NAME` and `demiglace init` find by name.

    @demiglace.hookimpl
    def demiglace_recipes():
        return [Path(__file__).parent]
    """
