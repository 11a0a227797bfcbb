"""Torch's optimizers, schedulers and losses by name, and what is said of wrong ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from demiglace.data import Batch
from demiglace.errors import UsageError
from demiglace.passes import Position
from demiglace.training import (
    loss_problems,
    named_loss,
    named_optimizer,
    named_pacer,
    optimizer_problems,
    scheduler_problems,
)
from demiglace.training.losses import LOSSES
from demiglace.training.optimizers import OPTIMIZERS
from demiglace.training.schedulers import SCHEDULERS

NEEDED = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "CyclicLR": {"base_lr": 0.001},
}


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 3))


def said(problems) -> list[str]:
    return [f"{one.message} | {one.hint}" for one in problems]


def rates(name, options, steps=20, **more) -> list[float]:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    pacer = named_pacer(name, options, **more)(optimizer, Position(steps, 10))
    seen = []
    for step in range(1, steps + 1):
        optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
        pacer.after_step()
        if step % 10 == 0:
            pacer.after_epoch(1.0)
    return seen


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps(name):
    one = parameter()
    optimizer = named_optimizer(name, {"lr": 0.1})([one])
    one.grad = torch.ones(2, 3)
    optimizer.step()
    assert not torch.equal(one, torch.ones(2, 3))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("by_epochs", [True, False])
def test_every_scheduler_runs_to_the_end(name, by_epochs):
    options = NEEDED.get(name, {})
    assert said(scheduler_problems(name, options)) == []
    assert len(rates(name, options, by_epochs=by_epochs)) == 20


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_torchs(name):
    scores = torch.rand(5, 3).log_softmax(1).exp()
    classes = torch.tensor([0, 1, 2, 0, 1])
    labels = classes if name in ("cross_entropy", "multi_margin_loss", "nll_loss") else torch.ones(5, 3)
    expected = getattr(nn.functional, name)(scores, labels)
    assert torch.equal(named_loss(name, {})(scores, Batch(labels=labels)), expected)


def test_a_schedule_without_a_length_spans_the_training_step_by_step():
    seen = rates("CosineAnnealingLR", {}, by_epochs=True)
    expected = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert seen == pytest.approx(expected)


def test_a_given_length_counts_epochs_as_torchs_documentation_has_it():
    assert rates("StepLR", {"step_size": 1, "gamma": 0.5}, by_epochs=True) == [0.1] * 10 + [0.05] * 10
    assert rates("StepLR", {"step_size": 5, "gamma": 0.5})[4:6] == [0.1, 0.05]


def test_one_cycle_peaks_at_the_optimizers_rate():
    assert max(rates("OneCycleLR", {}, by_epochs=True)) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        (lambda: optimizer_problems("Adm", {}, [parameter()]), "no optimizer 'Adm' | did you mean `Adam`"),
        (lambda: optimizer_problems("LBFGS", {}, [parameter()]), "torch has no optimizer 'LBFGS'"),
        (lambda: optimizer_problems("Adam", {"lrr": 1.0}, [parameter()]), "option 'lrr' | did you mean `lr`"),
        (lambda: optimizer_problems("Adam", {"lr": -1.0}, [parameter()]), "Invalid learning rate: -1.0"),
        (lambda: optimizer_problems("SGD", {"params": 1}, [parameter()]), "has no option 'params'"),
        (lambda: optimizer_problems("Muon", {}, [nn.Parameter(torch.ones(3))]), "Muon"),
        (lambda: scheduler_problems("CosineLR", {}), "no scheduler 'CosineLR' | did you mean `Cosine"),
        (lambda: scheduler_problems("LambdaLR", {}), "torch has no scheduler 'LambdaLR'"),
        (lambda: scheduler_problems("StepLR", {}), "needs the option 'step_size'"),
        (lambda: scheduler_problems("StepLR", {"step_size": 1, "last_epoch": 3}), "no option 'last_epoch'"),
        (lambda: scheduler_problems("LinearLR", {"start_factor": 3.0}), "scheduler LinearLR"),
        (lambda: loss_problems("crossentropy", {}), "no loss 'crossentropy' | did you mean `cross_"),
        (lambda: loss_problems("cross_entropy", {"label_smooth": 0.1}), "did you mean `label_smoothing`"),
        (lambda: loss_problems("mse_loss", {"reduction": "sum"}), "has no option 'reduction'"),
    ],
)  # fmt: skip
def test_wrong_names_and_options_are_explained(problems, expected):
    messages = said(problems())
    assert len(messages) == 1
    assert expected in messages[0]


def test_labels_that_torch_would_broadcast_are_refused():
    with pytest.raises(UsageError, match=r"predictions have shape \[5, 3\] and labels \[5\]"):
        named_loss("mse_loss", {})(torch.ones(5, 3), Batch(labels=torch.ones(5)))
    column = named_loss("mse_loss", {})(torch.arange(3.0)[:, None], Batch(labels=torch.arange(3)))
    assert column.item() == 0.0


def test_class_weights_are_a_list_in_a_recipe():
    scores, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    expected = nn.functional.cross_entropy(scores, labels, weight=torch.tensor([1.0, 3.0]))
    found = named_loss("cross_entropy", {"weight": [1.0, 3.0]})(scores, Batch(labels=labels))
    assert torch.equal(found, expected)
