"""Calibration of a model beside the one that it was made of, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from demiglace.calibration.run import calibrate
from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import Collectors, Watch, refuse_nonfinite_data
from demiglace.data import Batch

if TYPE_CHECKING:
    from torch import nn

    from demiglace.calibration.replay import Replay
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context


def calibrate_beside(
    original: nn.Module,
    model: ModelGraph,
    batches: Iterable[Batch],
    shown: Collectors,
    collectors: Collectors,
    context: Context,
    *,
    replays: tuple[Replay | None, Replay | None] = (None, None),
) -> None:
    """Run each batch through another module first, then through the model; both stop early.

    Args:
        original: the other module, whose layers have the same names.
        model: the model.
        batches: what to run through both, on their device.
        shown: what to show of the other module, by layer.
        collectors: what to gather at the model, by layer.
        context: honours interrupts.
        replays: of the other module and of the model, as for `calibrate`.

    Raises:
        DemiglaceError: as `calibrate` does.
    """
    watch = Watch(original, shown, stop_early=True, replay=replays[0])

    def run_first() -> Iterator[Batch]:
        for batch in batches:
            if len(batch) == 0:
                continue
            refuse_nonfinite_data(batch)
            watch.forward(batch)
            yield batch

    with undisturbed(original, context.device), watch:
        calibrate(model, run_first(), collectors, context, stop_early=True, replay=replays[1])
