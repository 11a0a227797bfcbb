"""What cannot be cut from a network is told before its first step, not after hours of training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import demiglace
from demiglace.engine.events import Listener
from demiglace.errors import GraphError, RecipeError, UsageError


class Started(Listener):
    """Keeps the steps that started."""

    def __init__(self):
        self.steps = []

    def step_started(self, step, number, count):
        self.steps.append(step)


class Counting(nn.Module):
    """A forward that branches on values, which torch.export refuses."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(x.relu() if float(x.sum()) > 0 else x)


def run(tmp_path, net, prune, listener=None):
    text = f'[[pass]]\nuse = "train.supervised"\nepochs = 1\n\n[[pass]]\nid = "cut"\n{prune}\n'
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    return demiglace.run(path, model=net, data=data, listener=listener)


def test_a_selector_that_takes_nothing_is_told_at_its_place_before_the_training(tmp_path):
    started = Started()
    prune = 'use = "prune.channels"\namount = 0.5\ntargets = ["2"]'
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, net, prune, started)
    [fault] = caught.value.faults
    assert "select no channels that can be removed (2.weight: it is an output of the model)" in fault.message
    assert (fault.place.line, fault.place.column) == (9, 11)
    assert started.steps == []


@pytest.mark.parametrize("use", ["prune.channels", "prune.blocks"])
def test_a_model_that_cannot_be_exported_is_told_before_the_training(tmp_path, use):
    started = Started()
    with pytest.raises(RecipeError, match=r"Counting cannot be traced at .*refusal\.py") as caught:
        run(tmp_path, Counting(), f'use = "{use}"\namount = 0.5', started)
    [fault] = caught.value.faults
    assert fault.place.line == 7
    assert "torch.where" in fault.hint
    assert started.steps == []


def test_a_schedule_that_a_pruner_cannot_follow_is_told_at_its_option(tmp_path):
    inside = (
        '[[pass.with]]\nuse = "prune.channels"\namount = 0.5\nof = "macs"\nschedule = { shape = "cubic" }\n'
    )
    path = tmp_path / "recipe.toml"
    path.write_text(f'[[pass]]\nuse = "train.supervised"\nepochs = 1\n{inside}')
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    with pytest.raises(RecipeError, match="of = 'macs'") as caught:
        demiglace.run(path, model=nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), data=data)
    assert caught.value.faults[0].place.line == 7


def test_what_a_pass_refuses_at_work_is_told_with_its_step_and_place(tmp_path):
    net = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(GraphError, match="step 'cut': there is no linear layer") as caught:
        run(tmp_path, net, 'use = "quantize.smooth"')
    assert (caught.value.faults[0].place.line, caught.value.faults[0].place.column) == (7, 7)


def test_what_a_participant_refuses_names_it(tmp_path):
    path = tmp_path / "recipe.toml"
    twice = '[[pass.with]]\nuse = "quantize.qat"\n' * 2
    path.write_text(f'[[pass]]\nid = "train"\nuse = "train.supervised"\nepochs = 1\n{twice}')
    data = [(torch.randn(8, 4), torch.randint(2, (8,)))]
    with pytest.raises(UsageError, match="step 'train': participant 'qat-2': targets") as caught:
        demiglace.run(path, model=nn.Sequential(nn.Linear(4, 2)), data=data)
    assert caught.value.faults[0].place.line == 3
