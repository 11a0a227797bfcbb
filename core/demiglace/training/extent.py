"""How long a training is, in optimizer steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from demiglace.errors import UsageError
from demiglace.passes import Position

if TYPE_CHECKING:
    from demiglace.data import Data
    from demiglace.training.settings import Settings


def extent(data: Data, settings: Settings) -> Position:
    """The start of a training with its length; a split of unknown length is walked once to count.

    Raises:
        UsageError: when the training split is empty.
    """
    split = data.split("train")
    batches = split.count(data.batch_size)
    if batches is None:
        batches = sum(1 for _ in split.batches(data.batch_size, torch.Generator()))
    if batches == 0:
        raise UsageError("the training split is empty", hint="give it examples")
    steps_per_epoch = math.ceil(batches / settings.accumulate)
    steps = settings.steps if settings.epochs is None else settings.epochs * steps_per_epoch
    if steps is None:
        raise UsageError("a training needs a length", hint="set `epochs` or `steps`")
    return Position(steps, steps_per_epoch)
