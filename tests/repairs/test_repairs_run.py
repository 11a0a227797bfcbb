"""Repairs in recipes: what the engine keeps for them, and which orders it refuses."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import RecipeError

PRUNE = {"use": "prune.magnitude", "amount": 0.7}
CUT = {"use": "prune.channels", "amount": 0.5}
TRAIN = {"use": "train.supervised", "epochs": 1}
SOLVE = {"use": "repair.least_squares", "samples": 64}
BIAS = {"use": "repair.bias", "scale": False, "samples": 64}
NORMS = {"use": "repair.batchnorm", "samples": 64}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def run(*passes):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 8, 8, generator=draw)
    batches = [(part, torch.arange(16) % 3) for part in images.split(16)]
    recipe = {"name": "repaired", "pass": [dict(one) for one in passes]}
    return demiglace.run(recipe, model=net(), data=batches), images


@torch.no_grad()
def missed(model, images):
    return float((model.eval()(images) - net().eval()(images)).square().mean())


@pytest.mark.parametrize("take", [PRUNE, CUT], ids=["masks", "cuts"])
@pytest.mark.parametrize("repair", [SOLVE, BIAS], ids=["least squares", "bias"])
def test_repairs_bring_the_model_nearer_to_what_it_was_before_the_pruning(take, repair):
    bare, images = run(take)
    repaired, _ = run(take, repair)
    assert missed(repaired.model, images) < missed(bare.model, images)


def test_several_editors_are_made_up_for_together():
    result, images = run(CUT, PRUNE, SOLVE)
    bare, _ = run(CUT, PRUNE)
    assert missed(result.model, images) < missed(bare.model, images)
    assert result.steps[2].figures["4.weight"]["error"] < result.steps[2].figures["4.weight"]["error_before"]


def test_the_original_is_the_trained_model_and_not_the_one_that_the_run_began_with():
    result, _ = run(PRUNE, TRAIN, {**PRUNE, "amount": 0.8}, SOLVE)
    assert result.steps[3].figures["6.weight"]["error_before"] < 1


def test_a_repair_with_nothing_before_it_is_refused():
    with pytest.raises(RecipeError, match="needs original, which nothing before it gives") as caught:
        run(TRAIN, SOLVE)
    assert "after the pass that takes something" in str(caught.value)


def test_a_repair_after_training_is_refused_with_an_order_that_works():
    with pytest.raises(RecipeError, match="needs original") as caught:
        run(PRUNE, TRAIN, SOLVE)
    assert "magnitude, least_squares, supervised" in str(caught.value)


def test_no_copy_is_kept_when_no_step_needs_one(monkeypatch):
    from demiglace.graph import ModelGraph

    copies = []
    copy = ModelGraph.copy
    monkeypatch.setattr(ModelGraph, "copy", lambda model: copies.append(model) or copy(model))
    run(PRUNE, NORMS, TRAIN, CUT)
    assert not copies
    run(TRAIN, PRUNE, SOLVE, TRAIN)
    assert len(copies) == 2  # the original, and what the repair works on
