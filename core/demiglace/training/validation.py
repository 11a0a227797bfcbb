"""Figures of a split, as training judges itself by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from demiglace.errors import UsageError
from demiglace.training.modes import evaluating
from demiglace.training.outputs import prediction

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.passes import Context
    from demiglace.training.task import Task


def validate(model: ModelGraph, context: Context, task: Task | None) -> Mapping[str, float]:
    """Mean loss, and for class labels accuracy, over the validation split; leaves no trace.

    Raises:
        UsageError: when there is no such split, or it is empty.
    """
    if context.data is None:
        raise UsageError("there is no data to validate on", hint="give the recipe a [data] table")
    examples, correct, classified = 0, 0, 0
    total = 0.0
    with evaluating(model.module, context.device):
        for raw in context.data.evaluate("validation"):
            context.check_interrupt()
            batch = raw.to(context.device)
            outputs, loss = (batch.run(model.module), None) if task is None else task(model.module, batch)
            examples += len(batch)
            if loss is not None:
                total += float(loss) * len(batch)
            if outputs is None:  # a caller's step that never called the module as a whole
                continue
            scores = prediction(outputs)
            if batch.labels is not None and is_classes(scores, batch.labels):
                correct += int((scores.argmax(1) == batch.labels).sum())
                classified += batch.labels.numel()
    if examples == 0:
        raise UsageError("the validation split is empty", hint='give it examples, or keep = "last"')
    figures = {} if task is None else {"loss": total / examples}
    return figures | ({"accuracy": correct / classified} if classified else {})


def is_classes(scores: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether labels are class indices for scores of shape `[n, classes, ...]`."""
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    return whole and scores.dim() >= 2 and labels.shape == scores.shape[:1] + scores.shape[2:]
