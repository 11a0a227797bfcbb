"""A control beside a compressed model, a caller's own step, and the model before compression as a teacher."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

import demiglace
from demiglace.errors import RecipeError, UsageError
from demiglace_trainers.supervised import SupervisedConfig

DATA = {"use": "fake", "shape": [12], "classes": 4, "train": 320, "test": 64}
TRAIN = {"use": "train.supervised", "epochs": 2}
PRUNE = {"use": "prune.magnitude", "amount": 0.5}
EVALUATE = [{"use": "evaluate.classification"}]


def recipe(*passes, **more):
    tables = {"name": "small", "model": {"use": "mlp", "widths": [12, 8, 4]}, "data": DATA}
    return tables | {"pass": list(passes)} | more


def digest(result, step):
    return result.steps[step].output


def test_the_control_is_the_dense_model_trained_as_long():
    once = demiglace.run(recipe(TRAIN | {"id": "dense"}, evaluate=EVALUATE))
    gradual = TRAIN | {"id": "again", "control": True, "with": [PRUNE]}
    dense = demiglace.run(recipe(TRAIN | {"id": "dense"}, TRAIN | {"id": "again"}, evaluate=EVALUATE))
    pruned = demiglace.run(recipe(TRAIN | {"id": "dense"}, gradual, evaluate=EVALUATE))
    control, metrics = pruned.steps[1].control, dense.steps[1].metrics
    assert {name: one.value for name, one in control.items()} == {
        name: one.value for name, one in metrics.items()
    }
    assert pruned.steps[1].figures["control"]["loss"] == dense.steps[1].figures["loss"]
    assert digest(pruned, 0) == digest(once, 0)
    assert pruned.steps[1].after.zeros >= 64
    assert not pruned.steps[0].control
    assert "control" in pruned.record.to_json()["steps"][1]


def test_the_control_of_a_fine_tuning_was_not_pruned_before():
    passes = [TRAIN | {"id": "dense"}, PRUNE, TRAIN | {"id": "again", "control": True}]
    pruned = demiglace.run(recipe(*passes, evaluate=EVALUATE))
    dense = demiglace.run(recipe(passes[0], passes[2] | {"control": False}, evaluate=EVALUATE))
    assert pruned.steps[2].figures["control"]["loss"] == dense.steps[1].figures["loss"]


def test_the_control_of_the_last_of_several_trainings_was_trained_in_all_of_them():
    dense, again = TRAIN | {"id": "dense"}, {**TRAIN, "id": "again", "epochs": 3}
    last = TRAIN | {"id": "last", "optimizer": "continue"}
    passes = [dense, PRUNE, again, PRUNE | {"id": "more", "amount": 0.7}, last | {"control": True}]
    pruned = demiglace.run(recipe(*passes, evaluate=EVALUATE))
    longer = demiglace.run(recipe(dense, again, last, evaluate=EVALUATE))
    assert pruned.steps[4].figures["control"]["loss"] == longer.steps[2].figures["loss"]
    assert pruned.steps[2].figures["control"]["loss"] == longer.steps[1].figures["loss"]
    control, metrics = pruned.steps[4].control, longer.steps[2].metrics
    assert {name: one.value for name, one in control.items()} == {
        name: one.value for name, one in metrics.items()
    }
    assert not pruned.steps[1].control
    assert "control" not in pruned.steps[0].figures


def test_nothing_is_compared_after_the_last_training_that_wants_it():
    wants = TRAIN | {"id": "wants", "control": True}
    result = demiglace.run(recipe(TRAIN | {"id": "dense"}, PRUNE, wants, TRAIN | {"id": "after"}))
    assert ["control" in step.figures for step in result.steps] == [False, False, True, False]


def test_the_plan_says_where_a_control_is_trained_along():
    passes = [TRAIN | {"id": "dense"}, PRUNE, TRAIN | {"id": "one"}, TRAIN | {"id": "two", "control": True}]
    lines = demiglace.plan(recipe(*passes)).lines()
    [dense] = (line for line in lines if " dense " in line)
    [one] = (line for line in lines if " one " in line)
    [two] = (line for line in lines if " two " in line)
    assert "control" not in dense
    assert one.endswith("and the control of a later step")
    assert two.endswith("and the uncompressed model as a control")


def test_a_training_without_a_loss_leaves_the_control_out_and_says_so():
    soft = {"use": "distill.logits", "teacher": "original", "alpha": 1.0}
    silent = TRAIN | {"id": "silent", "loss": "none", "with": [soft]}
    result = demiglace.run(recipe(PRUNE, silent, TRAIN | {"id": "two", "control": True}))
    assert "misses this training" in result.steps[1].warnings[0]
    assert "control" in result.steps[2].figures


def test_a_control_leaves_the_compressed_model_as_it_is_without():
    passes = [TRAIN | {"id": "dense"}, PRUNE, TRAIN | {"id": "again"}]
    without = demiglace.run(recipe(*passes))
    with_one = demiglace.run(recipe(*passes[:2], passes[2] | {"control": True}))
    assert digest(without, 2) == digest(with_one, 2)


def test_a_control_without_a_loss_of_its_own_is_refused():
    with pytest.raises(ValidationError, match="control = true trains without participants"):
        SupervisedConfig.model_validate({"epochs": 1, "loss": "none", "control": True})


def test_a_model_learns_from_what_it_was_before_it_was_pruned():
    soft = {"use": "distill.logits", "teacher": "original", "alpha": 1.0}
    again = TRAIN | {"id": "again", "epochs": 20, "optimizer": {"name": "Adam", "lr": 0.01}, "with": [soft]}
    passes = [TRAIN | {"id": "dense", "epochs": 20}, PRUNE | {"amount": 0.8}, again]
    history = demiglace.run(recipe(*passes)).steps[2].figures["history"]
    assert 0 < history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_an_original_to_learn_from_needs_an_editor_before():
    soft = {"use": "distill.logits", "teacher": "original"}
    with pytest.raises(RecipeError, match="needs original, which nothing before it gives"):
        demiglace.check(recipe(TRAIN | {"with": [soft]}))


class Odd(nn.Module):
    """Gives a dict that no loss of torch's knows."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, x):
        return {"value": self.inner(x)}


@pytest.fixture
def batches():
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    return [{"x": part, "target": part.sum(1)} for part in inputs.split(16)]


def own(**more):
    optimizer = {"name": "Adam", "lr": 0.1}
    return {"name": "own", "pass": [TRAIN | {"epochs": 40, "optimizer": optimizer} | more]}


def squared(module, batch):
    return F.mse_loss(module(**batch.kwargs)["value"][:, 0], batch.labels)


def test_a_callers_step_takes_the_place_of_the_loss_and_masks_hold(batches):
    pruner = {"use": "prune.magnitude", "amount": 1 / 3, "schedule": {"shape": "one_shot"}}
    result = demiglace.run(own(**{"with": [pruner]}), model=Odd(), data=batches, step=squared)
    weight = result.model.inner.weight[0]
    assert (weight == 0).sum() == 1
    assert weight[weight != 0].detach().tolist() == pytest.approx([1.0, 1.0], abs=0.5)


def test_participants_see_the_outputs_of_a_callers_step():
    net, inputs = nn.Linear(3, 4), torch.randn(32, 3)
    soft = {"use": "distill.logits", "alpha": 0.5, "teacher": "start"}
    batches = [(part, torch.zeros(8).long()) for part in inputs.split(8)]
    history = (
        demiglace.run(
            {"name": "own", "pass": [TRAIN | {"with": [soft]}]},
            model=net,
            data=batches,
            step=lambda module, batch: F.cross_entropy(module(batch.args[0]), batch.labels),
        )
        .steps[0]
        .figures["history"]
    )
    assert history[-1]["loss.logits.kl"] > 0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda module, batch: module(**batch.kwargs)["value"], r"gave shape \[16, 1\] instead of a scalar"),
        (lambda module, batch: squared(module, batch).item(), "gave float instead of a scalar"),
        (lambda module, batch: squared(module, batch).detach(), "does not depend on the weights"),
    ],
)
def test_a_step_that_gives_no_loss_is_refused(batches, step, message):
    with pytest.raises(UsageError, match=message):
        demiglace.run(own(), model=Odd(), data=batches, step=step)


def test_a_step_in_a_recipe_that_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="no pass trains"):
        demiglace.run(recipe(PRUNE), step=squared)
