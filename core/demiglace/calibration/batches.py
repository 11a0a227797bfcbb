"""The examples that a calibration looks at: the same ones, each time they are walked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from demiglace.data import Batch, Split
from demiglace.errors import UsageError
from demiglace.passes import Context


@dataclass(frozen=True)
class CalibrationBatches:
    """The first examples of a split in an order drawn from a seed, so that sorted data gives all classes."""

    split: Split
    examples: int
    batch_size: int
    seed: int
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        left = self.examples
        shuffle = torch.Generator().manual_seed(self.seed)
        for batch in self.split.batches(min(self.batch_size, self.examples), shuffle):
            taken = batch if len(batch) <= left else _part(batch, 0, left)
            yield taken.to(self.device)
            left -= max(1, len(taken))
            if left <= 0:
                return

    def first(self) -> Batch:
        """The first batch that has examples.

        Raises:
            UsageError: when none has.
        """
        for batch in self:
            if len(batch):
                return batch
        raise empty()

    def __len__(self) -> int:
        """The number of batches, an upper bound where the split does not know its size."""
        known = self.split.examples()
        examples = self.examples if known is None else min(self.examples, known)
        return math.ceil(examples / self.batch_size)


def empty() -> UsageError:
    """The error of calibration data without an example."""
    return UsageError(
        "the calibration data is empty", hint="give the data's calibration or train split examples"
    )


def calibration_batches(context: Context, examples: int, batch_size: int = 32) -> CalibrationBatches:
    """Batches of the calibration split on the step's device; may be walked any number of times.

    Args:
        context: the step's surroundings.
        examples: how many examples to use, at least 1; fewer when the split has fewer.
        batch_size: examples in a batch, as far as the split can choose.

    Raises:
        UsageError: when there is no data, no such split, or the split is empty.
    """
    if context.data is None:
        raise UsageError("there is no data to calibrate on", hint="give the recipe a [data] table")
    split = context.data.split("calibration")
    if split.examples() == 0:
        raise UsageError("the calibration split is empty", hint="check the options of [data]")
    return CalibrationBatches(split, examples, batch_size, context.seed, context.device)


def in_parts(batches: Iterable[Batch], examples: int) -> Iterator[Batch]:
    """Batches of at most so many examples, for work whose memory grows with them.

    A batch that holds anything but tensors of one length is left whole.
    """
    for batch in batches:
        if all(_has_length(value, len(batch)) for value in batch.inputs()):
            for start in range(0, len(batch), examples):
                yield _part(batch, start, start + examples)
        else:
            yield batch


def _part(batch: Batch, start: int, stop: int) -> Batch:
    """Some examples of a batch; what has another length than the batch is left whole."""
    size = len(batch)

    def cut(value: object) -> object:
        return value[start:stop] if _has_length(value, size) else value  # type: ignore[index]

    labels = None if batch.labels is None else batch.labels[start:stop]
    return replace(batch.mapped(cut), labels=labels)


def _has_length(value: object, size: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == size
