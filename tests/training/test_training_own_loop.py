"""`demiglace.participants`: the same participants in a loop that is the caller's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import demiglace
from demiglace.errors import Diverged, RecipeError, UsageError

PRUNE = {"use": "prune.magnitude", "amount": 0.5, "schedule": {"end": 0.5}}
CHANNELS = {"use": "prune.neurons", "amount": 0.5, "schedule": {"end": 0.5, "every": "5 steps"}}
SOFT = {"use": "distill.logits", "teacher": "start", "alpha": 0.25}
TRAIN = {"use": "train.supervised", "epochs": 3, "with": [PRUNE]}


def recipe(*participants, **more):
    return {"name": "own", "pass": [TRAIN | {"with": list(participants)} | more]}


@pytest.fixture
def module():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.fixture
def loader():
    rng = torch.Generator().manual_seed(1)
    inputs = torch.randn(80, 8, generator=rng)
    return list(zip(inputs.split(8), inputs[:, :4].argmax(1).split(8), strict=True))


def train(session, module, optimizer, loader, epochs=3):
    for _ in range(epochs):
        for inputs, labels in loader:
            outputs = module(inputs)
            loss = session.loss((inputs, labels), outputs, own=F.cross_entropy(outputs, labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("participants", [[PRUNE], [SOFT, PRUNE], [CHANNELS]], ids=["mask", "both", "cut"])
def test_it_trains_to_the_bit_as_the_recipe_does(module, loader, participants):
    other = copy.deepcopy(module)
    table = recipe(*participants, optimizer={"name": "AdamW", "lr": 0.01})
    demiglace.run(table, model=other, data=loader)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    with demiglace.participants(table, module, optimizer, data=loader) as session:
        train(session, module, optimizer, loader)
    ours, theirs = module.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if CHANNELS in participants:
        assert ours["0.weight"].shape == (8, 8)
    else:
        assert sum(int((one == 0).sum()) for one in ours.values()) == 96


def test_nothing_of_it_stays_after_the_block(module, loader):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with demiglace.participants(recipe(SOFT, PRUNE), module, optimizer, steps_per_epoch=10) as session:
        train(session, module, optimizer, loader)
    assert (session.at.step, session.at.epoch) == (30, 3)
    assert not optimizer._optimizer_step_post_hooks
    assert not module._forward_hooks


def test_what_was_trained_can_be_saved_and_loaded(module, loader, tmp_path):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    table = recipe(CHANNELS)
    with demiglace.participants(table, module, optimizer, data=loader) as session:
        train(session, module, optimizer, loader)
    session.save(tmp_path / "model")
    opened = demiglace.load(tmp_path / "model")
    inputs = torch.randn(4, 8)
    torch.testing.assert_close(opened(inputs), module(inputs))


def test_a_loop_that_ends_before_the_schedule_is_warned_of(module, loader):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with (
        pytest.warns(UserWarning, match="ended at step 10 of 30, before 'magnitude' was through"),
        demiglace.participants(recipe(PRUNE), module, optimizer, steps_per_epoch=10) as session,
    ):
        train(session, module, optimizer, loader, epochs=1)


def test_a_loss_that_is_not_finite_is_named_before_it_is_stepped(module, loader):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with (
        pytest.raises(Diverged, match="step 1 of 30: loss term 'task' is nan"),
        demiglace.participants(recipe(PRUNE), module, optimizer, steps_per_epoch=10) as session,
    ):
        session.loss(loader[0], module(loader[0][0]), own=torch.tensor(float("nan")))
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        (recipe(PRUNE), {}, "how many steps an epoch has"),
        (recipe(PRUNE), {"steps_per_epoch": 0}, "has no step"),
        (recipe(), {}, "one train pass with participants"),
        (
            {"name": "two", "pass": [{"use": "prune.nm"}, TRAIN]},
            {},
            "this one has prune.nm, train",
        ),
        (recipe(SOFT | {"teacher": "recipe"}), {"steps_per_epoch": 10}, "needs teacher"),
    ],
)
def test_what_cannot_take_part_is_refused(module, table, given, message):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises((UsageError, RecipeError), match=message):
        demiglace.participants(table, module, optimizer, **given)


def test_an_optimizer_of_another_model_is_refused(module):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with (
        pytest.raises(UsageError, match="trains no parameter of this model"),
        demiglace.participants(recipe(PRUNE), module, optimizer, steps_per_epoch=10),
    ):
        pytest.fail("entered")


def test_a_loss_of_nothing_is_refused(module, loader):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with (
        pytest.raises(UsageError, match="no participant adds one"),
        demiglace.participants(recipe(PRUNE), module, optimizer, steps_per_epoch=10) as session,
    ):
        session.loss(loader[0], module(loader[0][0]))
