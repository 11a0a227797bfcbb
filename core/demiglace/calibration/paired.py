"""Inputs of a changed model beside those of the original, row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.calibration.collector import Collector
from demiglace.calibration.gram import InputGram
from demiglace.calibration.rows import input_rows
from demiglace.calibration.run import calibrate
from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import Watch
from demiglace.data import Batch
from demiglace.errors import UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context


class PairedGram(InputGram):
    """`X^T X` of a layer's inputs in a changed model, and how they go with the original's inputs.

    With `Z` the original's rows and `W` its weight, `W Z^T X (X^T X)^-1` is the weight that comes nearest
    to the original's output on the changed inputs.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self._originals: deque[Tensor] = deque()
        self._cross: Tensor | None = None
        self._original_total: Tensor | None = None

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        original = self._originals.popleft()
        if original.shape != inputs[0].shape:
            raise UsageError("the changed model runs this layer on inputs of another shape than the original")
        pairs = zip(input_rows(module, inputs[0].detach()), input_rows(module, original), strict=True)
        for rows, originals in ((one.to(self.dtype), other.to(self.dtype)) for one, other in pairs):
            self._add(rows)
            cross, total = torch.bmm(originals.transpose(1, 2), rows), originals.sum(1)
            self._cross = cross if self._cross is None else self._cross.add_(cross)
            self._original_total = total if self._original_total is None else self._original_total.add_(total)

    @property
    def cross(self) -> Tensor:
        """`Z^T X`, shape `[groups, k, k]`: rows by the original's inputs, columns by the changed ones."""
        return self._gathered(self._cross)

    @property
    def original_total(self) -> Tensor:
        """The sum of the original's rows, shape `[groups, k]`."""
        return self._gathered(self._original_total)


class _Keep(Collector):
    """Keeps a layer's inputs of one batch for the changed model's turn."""

    def __init__(self, queue: deque[Tensor]) -> None:
        self.queue = queue

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.queue.append(inputs[0].detach().clone())


def gather_pairs(
    original: ModelGraph,
    changed: ModelGraph,
    batches: Iterable[Batch],
    layers: Sequence[str],
    context: Context,
) -> dict[str, PairedGram]:
    """Run batches through both models, one batch at a time, and pair the inputs of some layers.

    Args:
        original: the model as it was; its layers are read by `input_rows`.
        changed: the same structure with other values; the layers themselves not yet replaced.
        batches: what to run.
        layers: names of layers that both models call.
        context: honours interrupts.

    Raises:
        DemiglaceError: as `calibrate` does.
    """
    grams = {name: PairedGram(torch.float32) for name in layers}
    keeps = {name: _Keep(gram._originals) for name, gram in grams.items()}
    watch = Watch(original.module, keeps, stop_early=True)

    def first_through_the_original() -> Iterator[Batch]:
        for batch in batches:
            watch.forward(batch)
            yield batch

    with undisturbed(original.module, context.device), watch:
        calibrate(changed, first_through_the_original(), grams, context, stop_early=True)
    return grams
