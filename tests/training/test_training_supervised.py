"""`train.supervised`: its options, what it does with them, and real digits."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from demiglace.data import Data, IterableSplit
from demiglace.errors import UsageError
from demiglace.graph import Cut, ModelGraph, apply
from demiglace.passes import Context, Position, Schedule
from demiglace.training import Scheduled, named_pacer
from demiglace.training.pacing import warm_up
from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig
from demiglace_sources.mlp import perceptron
from demiglace_trainers.supervised import Supervised, SupervisedConfig


def trainer(**options) -> Supervised:
    return Supervised(SupervisedConfig.model_validate({"epochs": 2} | options))


def accuracy(model, data, split="test") -> float:
    examples = data.splits[split]
    with torch.no_grad():
        return float((model.module.eval()(examples.inputs).argmax(1) == examples.labels).float().mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of `epochs` and `steps`"),
        ({"epochs": 1, "steps": 1}, "exactly one of `epochs` and `steps`"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"epochs": 1, "optimizer": {"lr": 0.1}}, "name"),
        ({"epochs": 1, "optimizer": {"name": "Adam", "lr": float("nan")}}, "finite"),
        ({"epochs": 1, "loss": "none", "keep": "best"}, 'metric = "accuracy"'),
        ({"epochs": 1, "amp": "fp8"}, "amp"),
        ({"epochs": 1, "ema": 1.0}, "ema"),
        ({"epochs": 1, "epoch": 1}, "epoch"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        SupervisedConfig.model_validate(options)


def test_preflight_finds_everything_at_once_on_a_model_without_weights():
    with torch.device("meta"):
        model = ModelGraph(perceptron([4, 3], "ReLU"))
    found = trainer(optimizer="Adm", scheduler="StepLR", loss="mse").preflight(model)
    assert [one.option for one in found] == [("optimizer", "name"), ("scheduler",), ("loss", "name")]
    assert list(trainer(optimizer={"name": "SGD", "lr": 0.1, "momentum": 0.9}).preflight(model)) == []


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, {"labels"}),
        ({"loss": "none"}, set()),
        ({"keep": "best"}, {"labels", "data.validation"}),
        ({"early_stopping": {"patience": 2}}, {"labels", "data.validation"}),
        ({"scheduler": "ReduceLROnPlateau"}, {"labels", "data.validation"}),
        ({"optimizer": "continue"}, {"labels", "optimizer.state"}),
    ],
)
def test_the_contract_follows_the_options(options, needs):
    contract = trainer(**options).config.contract()
    assert contract.needs == {"weights.float", "model.trainable", "data.train"} | needs


def test_the_words_say_length_optimizer_and_loss():
    words = trainer(optimizer={"name": "SGD", "lr": 0.1}, warmup=0.1).config.words()
    assert words == "train for 2 epochs with SGD (lr 0.1), warm-up over 10% of training, loss cross_entropy"


def test_continue_goes_on_as_if_training_had_not_stopped(net, context):
    whole = copy.deepcopy(net)
    batch = next(context.data.evaluate("train"))
    context.data = Data({"train": IterableSplit([batch] * 10)})  # the same order in every epoch
    trainer(epochs=4).train(whole, context)
    trainer(epochs=2).train(net, context)
    trainer(epochs=2, optimizer="continue").train(net, context)
    for parts, single in zip(net.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(parts, single)


def test_continue_starts_afresh_only_where_a_shape_changed(net, context):
    warnings = []
    context.on_warning = warnings.append
    trainer(epochs=1).train(net, context)
    apply(net, [Cut("0.weight", 0, (0, 1)), Cut("0.bias", 0, (0, 1)), Cut("2.weight", 1, (0, 1))]).commit()
    trainer(epochs=1, optimizer="continue").train(net, context)
    assert [text.partition(":")[0] for text in warnings] == ["0.weight", "0.bias", "2.weight"]


def test_continue_without_an_earlier_training_is_an_error(net, context):
    with pytest.raises(UsageError, match="no training came before"):
        trainer(optimizer="continue").train(net, context)


def test_warm_up_rises_linearly_over_any_scheduler():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.8)
    at = Position(6, 6)
    warm_up(optimizer, 4, at)
    pacer = named_pacer("StepLR", {"step_size": 3, "gamma": 0.5})(optimizer, at)
    moves = []
    for _ in range(6):
        before, weight.grad = weight.item(), torch.ones(1)
        optimizer.step()
        pacer.after_step()
        at.step += 1
        moves.append(before - weight.item())
    assert moves == pytest.approx([0.2, 0.4, 0.6, 0.4, 0.4, 0.4])


def test_label_smoothing_channels_last_and_all_the_rest_at_once(net, context):
    figures = trainer(
        optimizer={"name": "AdamW", "lr": 0.01, "betas": [0.8, 0.99]},
        scheduler="OneCycleLR",
        warmup=0.1,
        loss={"name": "cross_entropy", "label_smoothing": 0.1},
        accumulate=2,
        clip_norm=1.0,
        amp="bf16",
        ema=0.9,
        early_stopping={"patience": 1},
        keep="best",
        metric="accuracy",
        channels_last=True,
    ).train(net, context)
    assert figures["steps"] == 10
    assert set(figures["history"][0]) >= {"validation.loss", "validation.accuracy"}


@pytest.mark.slow
def test_digits_are_learnt_and_95_percent_go_gradually(digits):
    torch.manual_seed(0)
    model = ModelGraph(perceptron([784, 300, 100, 10], "ReLU"))
    context = Context(seed=0, device=torch.device("cpu"), data=digits)
    trainer(epochs=8, optimizer={"name": "Adam", "lr": 2e-3}, scheduler="CosineAnnealingLR").train(
        model, context
    )
    dense = accuracy(model, digits)
    pruner = Scheduled(Magnitude(MagnitudeConfig(amount=0.95)), Schedule(), "pruner")
    trainer(epochs=8, optimizer={"name": "Adam", "lr": 2e-3}, scheduler="CosineAnnealingLR").train(
        model, context, [pruner]
    )
    weights = [one for one in model.module.parameters() if one.dim() > 1]
    zeros, total = sum(int((one == 0).sum()) for one in weights), sum(one.numel() for one in weights)
    assert zeros == round(0.95 * total)
    assert dense > 0.91
    assert accuracy(model, digits) > dense - 0.02
