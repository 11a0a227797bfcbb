"""What a model in runtimes is compared with: its fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context


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
