"""How much residual branches change what they are added to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import refuse_nonfinite_data
from demiglace.errors import GraphError

if TYPE_CHECKING:
    from demiglace.data import Batch
    from demiglace.graph import Branch, ModelGraph
    from demiglace.passes import Context


def branch_changes(
    model: ModelGraph, branches: Sequence[Branch], batches: Iterable[Batch], context: Context
) -> list[float]:
    """For each branch, the norm of what it adds as a share of the norm of what it is added to, at least 0.

    The norms run over all batches. A branch with a small share leaves nearly what it got.

    Raises:
        GraphError: for NaN or infinity in the data or in what a branch gives.
    """
    from demiglace.graph.plain import lower

    graph = lower(model)
    squares = dict.fromkeys([name for one in branches for name in (one.skip, one.end)], 0.0)

    def see(name: str, value: Any) -> None:
        if name in squares:
            squares[name] += float(value.double().square().sum())

    with undisturbed(graph, context.device):
        for batch in context.track(batches, "calibrating"):
            refuse_nonfinite_data(batch)
            graph.run(batch.args, batch.kwargs, see=see)
    changes = [(squares[one.end] / max(squares[one.skip], 1e-30)) ** 0.5 for one in branches]
    for one, change in zip(branches, changes, strict=True):
        if not change < float("inf"):
            raise GraphError(
                f"branch {one.name!r} gives NaN or infinity on the calibration data",
                hint="check that the model works on this data before compressing it",
            )
    return changes
