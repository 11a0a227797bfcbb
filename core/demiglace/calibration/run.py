"""The calibration run: data through the model, collectors at its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import TYPE_CHECKING, Any, TypeAlias

from demiglace.calibration.batches import empty
from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import Collectors, Watch, refuse_nonfinite_data
from demiglace.data import Batch
from demiglace.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.calibration.replay import Replay
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context

Loss: TypeAlias = "Callable[[Any, Batch], Tensor]"
"""A scalar loss of the model's outputs and the batch that gave them."""


def calibrate(
    model: ModelGraph,
    batches: Iterable[Batch],
    collectors: Collectors,
    context: Context,
    *,
    loss: Loss | None = None,
    stop_early: bool = False,
    replay: Replay | None = None,
) -> None:
    """Run batches through the model in eval mode and show each layer's calls to its collector.

    The model, its modes, buffers, gradients and the random state are as before afterwards.

    Args:
        model: the model; its module must be on the context's device.
        batches: what to run, already on that device.
        collectors: what to gather, by layer.
        context: shows progress and honours interrupts.
        loss: needed if a collector looks at gradients: the mean loss of a batch.
        stop_early: leave each forward pass, after the first, when all layers of interest have run.
        replay: of the model on the same batches, where passes aim at later and later layers: lets each pass
            begin late and leave early. Not for gradients.

    Raises:
        UsageError: when there is no batch, a batch does not fit the model, or gradients are wanted
            without a loss.
        GraphError: for NaN or infinity in the data or at a layer, which it names, or an unknown layer.
    """
    watch = Watch(model.module, collectors, stop_early, replay)
    if watch.gradients and loss is None:
        raise UsageError("gradients need a loss", hint="use data with labels")
    total = len(batches) if isinstance(batches, Sized) else None
    seen = 0
    with undisturbed(model.module, context.device, gradients=watch.gradients), watch:
        for batch in context.track(batches, "calibrating", total):
            if len(batch) == 0:
                continue
            refuse_nonfinite_data(batch)
            outputs = watch.forward(batch)
            if watch.gradients and loss is not None:
                watch.backward(loss(outputs, batch))
            seen += 1
    if seen == 0:
        raise empty()
