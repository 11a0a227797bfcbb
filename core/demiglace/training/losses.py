"""Losses by the name of their function in `torch.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from demiglace.errors import UsageError
from demiglace.passes import Problem
from demiglace.training.named import problems, refuse
from demiglace.training.outputs import prediction

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.data import Batch
    from demiglace.training.settings import TaskLoss

_ON_CLASSES = ("cross_entropy", "multi_margin_loss", "nll_loss")
_ELEMENTWISE = (
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)
LOSSES: Mapping[str, Callable[..., Any]] = {name: getattr(F, name) for name in (*_ON_CLASSES, *_ELEMENTWISE)}
"""The losses of two tensors, predictions and labels."""

_GIVEN = ("input", "target", "size_average", "reduce", "reduction")


def loss_problems(name: str, options: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with a loss of that name with these options."""
    return problems("loss", name, options, LOSSES, _GIVEN)


def named_loss(name: str, options: Mapping[str, object]) -> TaskLoss:
    """The mean loss of that name: of class labels, or of labels of the predictions' shape.

    Raises:
        UsageError: for an unknown name or option. The loss itself raises it for a batch without labels
            or with labels of another shape, which torch would broadcast.
    """
    refuse(loss_problems(name, options))
    compute, given = LOSSES[name], _tensors(options)
    elementwise = name in _ELEMENTWISE

    def loss(outputs: Any, batch: Batch) -> Tensor:
        scores = prediction(outputs)
        labels = _like(scores, _labels(batch), name) if elementwise else _labels(batch)
        try:
            return compute(scores, labels, **_on(scores.device, given))
        except (IndexError, RuntimeError, ValueError) as error:
            raise _misfit(name, scores, labels, error) from error

    return loss


def _misfit(name: str, scores: Tensor, labels: Tensor, error: Exception) -> UsageError:
    """Why a loss refuses labels: their range first, else what torch says."""
    shown = (
        f"predictions of shape {list(scores.shape)} and {labels.dtype} labels of shape {list(labels.shape)}"
    )
    classes = scores.shape[1] if scores.dim() > 1 else 0
    if isinstance(error, IndexError) and classes and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        reason = f"labels go from {low} to {high}, and the model tells {classes} classes apart"
    else:
        reason = f"{type(error).__name__}: {error}"
    return UsageError(
        f"{name} does not take {shown}: {reason}",
        hint="make the model's outputs and the labels fit each other",
    )


def _tensors(options: Mapping[str, object]) -> dict[str, Any]:
    """Lists of numbers, such as class weights, as tensors."""
    return {
        name: torch.tensor(value) if isinstance(value, list) else value for name, value in options.items()
    }


def _on(device: torch.device, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in options.items()
    }


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise UsageError(
            "the training data has no labels, and the loss needs them",
            hint='give labels, or set loss = "none" and add a distiller, which learns from a teacher',
        )
    return batch.labels


def _like(scores: Tensor, labels: Tensor, name: str) -> Tensor:
    """Labels in the shape and dtype of the predictions."""
    if labels.shape != scores.shape and labels.numel() != scores.numel():
        raise UsageError(
            f"{name} compares element by element, but predictions have shape {list(scores.shape)} "
            f"and labels {list(labels.shape)}",
            hint="use cross_entropy for class labels",
        )
    return labels.reshape(scores.shape).to(scores.dtype)
