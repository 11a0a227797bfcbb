"""What the repairs have in common: calibration options, and the model as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.graph import Cut
from demiglace.passes import Context, Targeted
from demiglace.recipe.selectors import ROOT, selected

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.calibration import CalibrationBatches
    from demiglace.graph import ModelGraph

UNCHANGED = 1e-9
"""An error, as a share of the power of a layer's outputs, that is no more than rounding."""


class Calibrated(Targeted):
    """Options of a repair, which looks at calibration data."""

    samples: Annotated[int, Field(ge=1)] = 1024
    """Calibration examples to look at."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples in a calibration batch."""

    def batches(self, context: Context) -> CalibrationBatches:
        """The examples to look at."""
        from demiglace.calibration import calibration_batches

        return calibration_batches(context, self.samples, self.batch_size)


def original_of(context: Context) -> ModelGraph:
    """The model before the editors that are to be made up for.

    Raises:
        UsageError: when the engine did not keep it.
    """
    if context.original is None:
        raise UsageError(
            "there is no original that the model could be compared with",
            hint="put the repair after the pass that takes something from the model, not inside a training",
        )
    return context.original.with_layers()


def selected_layers(model: ModelGraph, config: Targeted) -> Iterator[tuple[str, nn.Module]]:
    """The layers that the selectors take, by their own names or their parameters', each once.

    Names are those of `get_submodule`: the root is the empty string.
    """
    candidates = model.candidates()
    taken = {one.name for one in selected(candidates, config.targets)}
    ignored = {one.name for one in selected(candidates, config.ignore)}
    for path, layer in model.module.named_modules():
        own = [f"{path}.{name}" if path else name for name in layer._parameters]
        if taken & {path or ROOT, *own} and not ignored & {path or ROOT, *own}:
            yield path, layer


def quiet(context: Context) -> Context:
    """The context for a part of the work, whose progress is not the step's."""
    return replace(context, on_progress=lambda *_: None)


def kept_channels(original: ModelGraph, model: ModelGraph, tensor: str) -> Tensor | None:
    """Which of the original's output channels a parameter still has; `None` for all.

    Args:
        original: the model before the cuts.
        model: the same model after them.
        tensor: name of a weight or bias whose first dimension runs over output channels.

    Returns:
        Indices on the parameter's device, shape `[channels]`.
    """
    import torch

    kept: Tensor | None = None
    for edit in model.edits[len(original.edits) :]:
        if isinstance(edit, Cut) and (edit.tensor, edit.dim) == (tensor, 0):
            chosen = torch.tensor(edit.kept, device=model.module.get_parameter(tensor).device)
            kept = chosen if kept is None else kept[chosen]
    return kept
