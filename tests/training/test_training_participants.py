"""Participants at work: masks held, cuts followed, schedules kept, and third parties' own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from demiglace.errors import GraphError, UsageError
from demiglace.graph import Cut, Mask, ModelGraph, SetAttr, Swap, apply
from demiglace.passes import Asked, Config, Editor, Participant, Schedule
from demiglace.training import Scheduled, Settings, Stopping, fit, hold_masks, named_loss
from demiglace.training.capture import Capture
from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=0.01),
    "rprop": torch.optim.Rprop,
}


def settings(optimizer="adam", **more) -> Settings:
    more = {"epochs": 3, "loss": named_loss("cross_entropy", {})} | more
    return Settings(optimizer=OPTIMIZERS[optimizer], **more)


def gradual(amount=0.8, **schedule) -> Scheduled:
    return Scheduled(Magnitude(MagnitudeConfig(amount=amount)), Schedule(**schedule), "pruner")


def zeros(model) -> int:
    return sum(int((one == 0).sum()) for one in model.module.parameters() if one.dim() > 1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"keep": "best"}, {"clip_norm": 0.1}, {"accumulate": 3}])
def test_masked_weights_stay_exactly_zero(net, context, optimizer, more):
    keep = torch.rand(16, 8, generator=context.rng()) > 0.5
    net.masks["0.weight"] = keep
    nonzero_after_a_step = []

    class Spy(Participant[Config]):
        def after_step(self, at):
            nonzero_after_a_step.append(net.module[0].weight[~keep].count_nonzero().item())

    fit(net, context, settings(optimizer, **more), [Spy(Config())])
    assert set(nonzero_after_a_step) == {0}
    assert net.module[0].weight[~keep].count_nonzero() == 0
    assert net.module[0].weight[keep].count_nonzero() == keep.sum()


def test_masks_hold_in_a_users_own_loop(net):
    net.masks["0.weight"] = torch.zeros(16, 8, dtype=torch.bool)
    optimizer = torch.optim.SGD(net.module.parameters(), lr=0.1, momentum=0.9)
    handle = hold_masks(optimizer, net)
    for _ in range(3):
        net.module(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    assert net.module[0].weight.count_nonzero() == 0
    handle.remove()
    net.module[0].weight.grad.fill_(1.0)
    optimizer.step()
    assert net.module[0].weight.count_nonzero() > 0


def test_gradual_pruning_raises_the_amount_by_the_schedule(net, context):
    trail = []

    class Spy(Participant[Config]):
        def after_step(self, at):
            trail.append(zeros(net))

    fit(net, context, settings(), [gradual(begin=0.0, end=0.5, every="1 steps"), Spy(Config())])
    weights = 16 * 8 + 4 * 16
    points = Schedule(end=0.5, every="1 steps").points(30, 10)
    expected = [round(weights * 0.8 * (1 - (1 - min(step / points[-1], 1)) ** 3)) for step in range(30)]
    assert trail == expected
    assert context.asked == [Asked("zeros", expected[-1], over=("0.weight", "2.weight"))]


def test_best_weights_and_early_stopping_wait_for_the_end_of_the_schedule(net, context):
    """Else the dense weights of the first epochs would be the best ones."""
    loop = fit(
        net,
        context,
        settings(epochs=10, keep="best", stopping=Stopping(patience=1)),
        [gradual(0.9, end=0.6)],
    )
    assert loop.history.best_epoch >= 6
    assert zeros(net) == round(0.9 * (16 * 8 + 4 * 16))


def test_a_schedule_without_an_amount_to_raise_is_refused(net, context):
    editor = Magnitude(MagnitudeConfig(threshold=0.1))
    with pytest.raises(UsageError, match="raises `amount`"):
        fit(net, context, settings(), [Scheduled(editor, Schedule())])
    fit(net, context, settings(), [Scheduled(editor, Schedule(shape="one_shot", begin=0.5))])
    assert zeros(net) > 0


def test_a_promise_holds_until_another_participant_changes_what_it_is_about(net, context):
    early, late = gradual(0.5, end=0.4), gradual(0.7, end=0.8)
    fit(net, context, settings(), [early, late])
    [asked] = context.asked
    assert (asked.figure, asked.value) == ("zeros", zeros(net))
    context.asked.clear()
    fit(net, context, settings(), [gradual(0.7, end=0.8)])
    assert [one.value for one in context.asked] == [zeros(net)]


class HalfUnits(Editor[Config]):
    """Cuts the second half of the hidden units."""

    def edits(self, model, context, amount=None):
        width = model.module[0].out_features
        kept = tuple(range(width - round(width * amount)))
        yield Cut("0.weight", 0, kept)
        yield Cut("0.bias", 0, kept)
        yield SetAttr("0", "out_features", len(kept))
        yield Cut("2.weight", 1, kept)
        yield SetAttr("2", "in_features", len(kept))


class HalfConfig(Config):
    """Cuts hidden units."""

    amount: float = 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cuts_between_steps_take_moments_averages_and_masks_along(net, context, optimizer):
    net.masks["0.weight"] = torch.arange(16)[:, None].expand(16, 8) % 3 != 0
    schedule = Schedule(shape="linear", begin=0.2, end=0.6, every="4 steps")
    loop = fit(net, context, settings(optimizer, ema=0.9), [Scheduled(HalfUnits(HalfConfig()), schedule)])
    assert net.module[0].weight.shape == (8, 8)
    assert net.module[2].weight.shape == (4, 8)
    assert net.masks["0.weight"].shape == (8, 8)
    assert (net.module[0].weight == 0).sum() == (~net.masks["0.weight"]).sum()
    for parameter in net.module.parameters():
        shapes = {value.shape for value in loop.optimizer.state[parameter].values() if value.dim()}
        for shape in shapes:
            assert all(size in (1, own) for size, own in zip(shape, parameter.shape, strict=True))


def test_a_cut_keeps_the_moments_of_what_stays(net, context):
    seen = {}

    class CutOnce(Participant[Config]):
        def prepare(self, loop):
            self.loop = loop

        def before_step(self, at):
            if at.step == 5:
                seen["before"] = self.loop.optimizer.state[net.module[0].weight]["exp_avg"].clone()
                self.loop.apply(HalfUnits(HalfConfig()).edits(net, context, 0.25))
                seen["after"] = self.loop.optimizer.state[net.module[0].weight]["exp_avg"].clone()

    fit(net, context, settings(), [CutOnce(Config())])
    assert torch.equal(seen["after"], seen["before"][:12])


def test_a_swap_between_steps_is_refused(net, context):
    class Swapper(Participant[Config]):
        def prepare(self, loop):
            self.loop = loop

        def after_epoch(self, at):
            self.loop.apply([Swap("0", "fake_quantized", {"weights": {"weight": 4}, "inputs": False})])

    with pytest.raises(GraphError, match="cannot be swapped in in the middle of training"):
        fit(net, context, settings(), [Swapper(Config())])


class Penalty(Participant[Config]):
    """A third party's: the L1 norm of a layer's output, and a trained scale of its own."""

    def prepare(self, loop):
        self.output = loop.capture("1")
        self.scale = nn.Parameter(torch.tensor(1.0))
        loop.train_also([self.scale])

    def loss(self, batch, outputs):
        return {"l1": 0.5 * self.output().abs().mean() * self.scale.abs()}


class Zeroing(Participant[Config]):
    """A third party's: masks a weight in the middle, one more at the end, and follows others' edits."""

    def __init__(self, config):
        super().__init__(config)
        self.seen = []

    def prepare(self, loop):
        self.loop = loop

    def after_epoch(self, at):
        if at.epoch == 1:
            self.loop.apply([Mask("0.weight", torch.arange(8).expand(16, 8) != 3)])

    def on_edit(self, edits):
        self.seen += edits

    def finish(self):
        yield Mask("2.weight", torch.arange(16).expand(4, 16) != 5)


def test_third_parties_take_part(net, context):
    penalty, zeroing = Penalty(Config()), Zeroing(Config())
    penalty.id = "acme"
    loop = fit(net, context, settings(), [penalty, zeroing])
    assert {"loss", "loss.task", "loss.acme.l1"} <= set(loop.history.epochs[0])
    assert loop.history.epochs[-1]["loss.acme.l1"] < loop.history.epochs[0]["loss.acme.l1"]
    assert penalty.scale.item() != 1.0
    assert net.module[0].weight[:, 3].count_nonzero() == 0
    assert net.module[2].weight[:, 5].count_nonzero() == 0
    assert [edit.tensor for edit in zeroing.seen] == ["0.weight", "2.weight"]
    assert not net.module[1]._forward_hooks, "captures end with the training"


def test_a_layer_to_capture_that_does_not_exist_is_named_with_the_nearest(context, net):
    class Curious(Participant[Config]):
        def prepare(self, loop):
            loop.capture("fc11")

    net.module = nn.Sequential()
    net.module.add_module("fc1", nn.Linear(8, 4))
    with pytest.raises(UsageError, match="no layer 'fc11'") as caught:
        fit(net, context, settings(), [Curious(Config())])
    assert "fc1" in caught.value.faults[0].hint


def test_a_copy_of_the_model_does_not_speak_for_the_model(net):
    """A deep copy, such as a teacher, has the capturing hooks too."""
    captured = Capture(net.module, "0")
    copied = copy.deepcopy(net.module)
    own = net.module[0](torch.zeros(2, 8))
    copied(torch.ones(2, 8))
    net.module(torch.zeros(2, 8))
    copied(torch.ones(2, 8))
    assert torch.equal(captured(), own)


def test_a_participant_may_leave_out_the_trainers_own_loss(net, context, blobs):
    class Alone(Participant[Config]):
        task_weight = 0.0

        def loss(self, batch, outputs):
            return {"pull": outputs.square().mean()}

    loop = fit(net, context, settings(loss=lambda outputs, batch: pytest.fail("called")), [Alone(Config())])
    assert loop.history.epochs[-1]["loss"] < loop.history.epochs[0]["loss"]


def test_a_checkpoint_of_a_schedule_goes_on_where_it_was(net, context):
    one, other = gradual(), gradual()
    fit(net, context, settings(), [one])
    other.restore_state(one.state())
    assert other.state() == one.state()
    assert other.state()["next"] > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.complex128])
def test_masks_are_held_in_weights_of_every_width(dtype):
    layer = nn.Linear(4, 2, bias=False).to(dtype)
    model = ModelGraph(layer)
    keep = torch.tensor([[True, False, True, True]] * 2)
    apply(model, [Mask("weight", keep)]).commit()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    hold_masks(optimizer, model)
    layer.weight.abs().sum().backward()
    layer.weight.grad.fill_(1)
    optimizer.step()
    assert torch.equal(layer.weight != 0, keep)
