"""The loop: what it computes, what it leaves as it was, when it stops."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from demiglace.data import Data, IterableSplit, TensorSplit
from demiglace.errors import Diverged, Interrupted, UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Config, Context, Participant
from demiglace.training import Settings, Stopping, fit, named_loss

CPU = torch.device("cpu")


def settings(lr: float = 0.05, optimizer=torch.optim.SGD, **more) -> Settings:
    more = {"epochs": 2, "loss": named_loss("cross_entropy", {})} | more
    if more.get("steps"):
        more["epochs"] = None
    return Settings(optimizer=lambda parameters: optimizer(parameters, lr=lr), **more)


def weights(model: ModelGraph) -> list[torch.Tensor]:
    return [one.detach().clone() for one in model.module.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_loop_computes_what_a_hand_written_loop_computes(net, context):
    module = copy.deepcopy(net.module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    shuffle = context.rng()
    for _ in range(2):
        for batch in context.data.train(shuffle):
            optimizer.zero_grad()
            F.cross_entropy(module(batch.args[0]), batch.labels).backward()
            optimizer.step()
    fit(net, context, settings(0.01, torch.optim.Adam))
    assert same(weights(net), [one.detach() for one in module.parameters()])


def test_only_the_seed_decides(net, context):
    twin, other = copy.deepcopy(net), copy.deepcopy(net)
    for model in (net, twin, other):
        model.module.insert(1, nn.Dropout(0.5))
    fit(net, context, settings())
    torch.rand(5)
    fit(twin, context, settings())
    fit(other, replace(context, seed=8), settings())
    assert same(weights(net), weights(twin))
    assert not same(weights(net), weights(other))


def test_modes_and_random_state_are_given_back(net, context):
    net.module.insert(1, nn.Dropout(0.5))
    net.module.eval()
    net.module[0].train()
    modes = [one.training for one in net.module.modules()]
    before = torch.get_rng_state()
    fit(net, context, settings(validate=True))
    assert modes == [one.training for one in net.module.modules()]
    assert torch.equal(before, torch.get_rng_state())


def test_accumulated_batches_weigh_by_their_examples(net, context, blobs):
    """Batches of 60, 60, 60, 20 in one step are one batch of 200."""
    whole = copy.deepcopy(net)
    fit(whole, replace(context, data=replace(blobs, batch_size=200)), settings(epochs=1))
    fit(net, replace(context, data=replace(blobs, batch_size=60)), settings(epochs=1, accumulate=4))
    for one, other in zip(weights(net), weights(whole), strict=True):
        torch.testing.assert_close(one, other)


def test_a_length_in_steps_is_kept_to_the_step(net, context):
    loop = fit(net, context, settings(steps=13))
    assert loop.at.step == 13
    assert [entry["step"] for entry in loop.history.epochs] == [10, 13]


def test_progress_counts_every_step(net, context):
    seen = []
    context.on_progress = lambda done, total, text: seen.append((done, total))
    fit(net, context, settings(epochs=1))
    assert seen == [(step, 10) for step in range(11)]


def test_an_interrupt_ends_training_at_the_very_step(net, context):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise Interrupted(15)

    context.check_interrupt = check
    with pytest.raises(Interrupted):
        fit(net, context, settings())
    assert len(calls) == 4


@pytest.mark.parametrize("split", [TensorSplit(torch.zeros(0, 8), torch.zeros(0).long()), IterableSplit([])])
def test_an_empty_training_split_is_an_error(net, context, split):
    context.data = Data({"train": split})
    with pytest.raises(UsageError, match="empty"):
        fit(net, context, settings())


def test_a_loader_without_a_length_is_counted(net, context, blobs):
    class Loader:
        def __iter__(self):
            return iter([(torch.zeros(4, 8), torch.zeros(4).long())] * 3)

    context.data = Data({"train": IterableSplit(Loader())})
    loop = fit(net, context, settings())
    assert (loop.at.steps_per_epoch, loop.at.step) == (3, 6)


def test_absent_labels_are_an_error_that_says_what_to_do(net, context):
    context.data = Data({"train": TensorSplit(torch.zeros(4, 8))})
    with pytest.raises(UsageError, match="no labels") as caught:
        fit(net, context, settings())
    assert 'loss = "none"' in str(caught.value)


def test_nothing_to_minimise_is_an_error(net, context):
    with pytest.raises(UsageError, match="nothing is to be minimised"):
        fit(net, context, settings(loss=None))


def test_nothing_to_train_is_an_error(net, context):
    net.module.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter to train"):
        fit(net, context, settings())


class Poison(Participant[Config]):
    """Its term becomes NaN at step 13."""

    def before_step(self, at):
        self.step = at.step

    def loss(self, batch, outputs):
        return {"poison": outputs.sum() * (float("nan") if self.step == 13 else 0.0)}


def test_a_nan_term_stops_with_its_name_and_the_last_good_weights(net, context):
    good = copy.deepcopy(net)
    fit(good, context, settings(epochs=1))
    bad = Poison(Config())
    bad.id = "toxin"
    with pytest.raises(Diverged) as caught:
        fit(net, context, settings(), [bad])
    assert "step 14 of 20 (epoch 2, batch 4)" in str(caught.value)
    assert "'toxin.poison' is nan" in str(caught.value)
    assert same(weights(net), weights(good)), "the weights of the end of epoch 1 are back"


def test_weights_that_overflow_in_the_last_step_are_noticed(net, context):
    before = weights(net)
    with pytest.raises(Diverged):
        fit(net, context, settings(lr=1e38, steps=1, loss=lambda outputs, batch: 1e4 * outputs.mean()))
    assert same(weights(net), before)


def test_the_best_epoch_on_validation_stays(net, context, blobs):
    wrong = TensorSplit(blobs.splits["train"].inputs, (blobs.splits["train"].labels + 1) % 4)
    context.data = replace(blobs, splits={"train": blobs.splits["train"], "validation": wrong})
    first = copy.deepcopy(net)
    fit(first, context, settings(epochs=1))
    loop = fit(net, context, settings(epochs=9, keep="best", stopping=Stopping(patience=2)))
    assert loop.history.best_epoch == 1
    assert loop.history.stopped_early
    assert loop.at.epoch == 3
    assert same(weights(net), weights(first))


def test_early_stopping_needs_a_validation_split_and_never_takes_test(net, context, blobs):
    context.data = replace(blobs, splits={"train": blobs.splits["train"], "test": blobs.splits["test"]})
    with pytest.raises(UsageError, match="no 'validation' split"):
        fit(net, context, settings(keep="best"))


def test_averaged_weights_replace_the_last_ones(net, context):
    plain = copy.deepcopy(net)
    fit(plain, context, settings())
    means = weights(net)
    trail = []

    class Trail(Participant[Config]):
        def after_step(self, at):
            trail.append(weights(net))

    fit(net, context, settings(ema=0.9), [Trail(Config())])
    for step, now in enumerate(trail):
        decay = min(0.9, (1 + step) / (10 + step))
        means = [decay * mean + (1 - decay) * one for mean, one in zip(means, now, strict=True)]
    for mean, one in zip(means, weights(net), strict=True):
        torch.testing.assert_close(mean, one)
    assert not same(weights(net), weights(plain))


def test_gradients_are_clipped_to_their_norm(net, context):
    before = weights(net)
    fit(net, context, settings(lr=1.0, steps=1, clip_norm=0.01))
    moved = torch.stack([(a - b).norm() for a, b in zip(before, weights(net), strict=True)]).norm()
    torch.testing.assert_close(moved, torch.tensor(0.01), rtol=1e-3, atol=0)


def test_bf16_autocast_computes_in_bf16_and_keeps_float_weights(net, context):
    dtypes = set()

    class Spy(Participant[Config]):
        def loss(self, batch, outputs):
            dtypes.add(outputs.dtype)
            return {}

    fit(net, context, settings(autocast=torch.bfloat16), [Spy(Config())])
    assert dtypes == {torch.bfloat16}
    assert {one.dtype for one in weights(net)} == {torch.float32}


def test_dict_batches_and_dict_outputs_train(context):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 4)

        def forward(self, points):
            return {"logits": self.inner(points)}

    split = [{"points": torch.randn(6, 8), "labels": torch.arange(6) % 4}] * 2
    model = ModelGraph(Wrapped())
    before = weights(model)
    fit(model, Context(1, CPU, Data({"train": IterableSplit(split)})), settings())
    assert not same(weights(model), before)
