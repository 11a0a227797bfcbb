"""Predictions against labels, collected batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from demiglace.errors import UsageError
from demiglace.training import is_classes, prediction


class Tally:
    """What each prediction was worth, in the data's order.

    Args:
        top_k: the k for which top-k hits are collected.
    """

    def __init__(self, top_k: Sequence[int]) -> None:
        self._top: dict[int, list[Tensor]] = {k: [] for k in top_k}
        self._hits: list[Tensor] = []
        self._losses: list[Tensor] = []
        #: Shape `[2, classes]`: true positives, and labels plus predictions, of each class.
        self._counts: Tensor | None = None

    def add(self, outputs: Any, labels: Tensor | None) -> None:
        """Take in a batch.

        Raises:
            UsageError: when there are no labels, or they are not class indices for these predictions.
        """
        scores = prediction(outputs).float()
        labels = _checked(scores, labels)
        scores, labels = scores.movedim(1, -1).flatten(0, -2), labels.flatten()
        predicted = scores.argmax(1)
        self._hits.append((predicted == labels).float().cpu())
        self._losses.append(F.cross_entropy(scores, labels, reduction="none").cpu())
        for k, hits in self._top.items():
            best = scores.topk(min(k, scores.shape[1]), dim=1).indices
            hits.append((best == labels[:, None]).any(1).float().cpu())
        self._count(predicted, labels, scores.shape[1])

    @property
    def hits(self) -> Tensor:
        """Shape `[examples]`: 1 where the prediction is right."""
        return torch.cat(self._hits)

    @property
    def losses(self) -> Tensor:
        """Shape `[examples]`: cross-entropy in nats."""
        return torch.cat(self._losses)

    def top(self, k: int) -> Tensor:
        """Shape `[examples]`: 1 where the class is among the k of the highest score."""
        return torch.cat(self._top[k])

    def f1(self) -> float:
        """The mean of the classes' F1 scores, over the classes that occur."""
        if self._counts is None:
            return 0.0
        right, occurred = self._counts.double()
        occurs = occurred > 0
        return float((2 * right[occurs] / occurred[occurs]).mean())

    def __len__(self) -> int:
        return sum(len(one) for one in self._hits)

    def _count(self, predicted: Tensor, labels: Tensor, classes: int) -> None:
        right = torch.bincount(labels[predicted == labels], minlength=classes)
        occurred = torch.bincount(torch.cat((predicted, labels)), minlength=classes)
        counts = torch.stack((right, occurred))
        self._counts = counts if self._counts is None else self._counts + counts


def _checked(scores: Tensor, labels: Tensor | None) -> Tensor:
    """Labels that are class indices of the scores."""
    if labels is None:
        raise UsageError("the examples to evaluate on have no labels", hint="use data with labels")
    if not is_classes(scores, labels):
        raise UsageError(
            f"labels of shape {list(labels.shape)} and dtype {labels.dtype} are no class indices for "
            f"predictions of shape {list(scores.shape)}",
            hint="predictions must be [n, classes, ...] and labels whole numbers of shape [n, ...]",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= scores.shape[1]:
        raise UsageError(
            f"labels run from {low} to {high}, but the model tells {scores.shape[1]} classes apart",
            hint="make the model's classes and the data's labels the same",
        )
    return labels.long()
