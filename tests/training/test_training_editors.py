"""Every editor in training: amounts follow the schedule, and all that is known of weights follows cuts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from demiglace.data import Data, TensorSplit
from demiglace.errors import GraphError
from demiglace.graph import Cut, Example, ModelGraph
from demiglace.passes import Config, Context, Participant, Schedule
from demiglace.plugins import discover
from demiglace.training import Scheduled, Settings, fit, named_loss

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.AdamW(parameters, lr=0.003, amsgrad=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.001, momentum=0.5, centered=True),
}


class Attending(nn.Module):
    """A residual convolution, attention over the positions, and an MLP: something for every editor."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 8, 3, padding=1)
        self.back = nn.Conv2d(8, 16, 1)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.hidden = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.relu(self.inner(x)))
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.relu(self.hidden(x.mean(1))))


@pytest.fixture
def data() -> Data:
    rng = torch.Generator().manual_seed(2)
    split = TensorSplit(torch.randn(80, 1, 4, 4, generator=rng), torch.arange(80) % 4)
    return Data({"train": split, "calibration": split}, batch_size=8)


@pytest.fixture
def network(data) -> ModelGraph:
    torch.manual_seed(1)
    [batch, *_] = data.evaluate("train")
    return ModelGraph(Attending().eval(), Example((batch.args[0][:2],)))


def editor(use: str, **options):
    registry = discover()
    spec = registry.passes[use]
    return registry.implementation(spec)(spec.config.model_validate(options))


class Watcher(Participant[Config]):
    """Compares what is remembered of every parameter before and after each edit, index by index."""

    def prepare(self, loop):
        self.loop, self.compared = loop, 0

    def before_step(self, at):
        self.before = self.remembered()

    def remembered(self):
        """By parameter: its values, its mask, its average, and every moment of its shape."""
        loop, found = self.loop, {}
        average = dict(zip(loop._average._names, loop._average._means, strict=True))
        for name, parameter in loop.model.module.named_parameters():
            state = loop.optimizer.state[parameter]
            moments = {key: one for key, one in state.items() if getattr(one, "shape", ()) == parameter.shape}
            mask = {"mask": loop.model.masks[name]} if name in loop.model.masks else {}
            all_of = {"value": parameter.detach(), "average": average[name], **moments, **mask}
            found[name] = {key: one.clone() for key, one in all_of.items()}
        return found

    def on_edit(self, edits):
        expected, now = copy.deepcopy(self.before), self.remembered()
        for cut in (edit for edit in edits if isinstance(edit, Cut) and edit.tensor in expected):
            for key, one in expected[cut.tensor].items():
                expected[cut.tensor][key] = one.index_select(cut.dim, torch.tensor(cut.kept))
        for name, parts in expected.items():
            for key in parts.keys() - {"mask"} if not self.cuts(edits) else parts:
                if key == "value" and not self.cuts(edits):
                    continue
                assert torch.equal(now[name][key], parts[key]), (name, key)
                self.compared += 1
        self.before = now

    @staticmethod
    def cuts(edits):
        return any(isinstance(edit, Cut) for edit in edits)


STRUCTURAL = {
    "prune.channels": {"targets": ["inner"]},
    "prune.neurons": {"targets": ["hidden"]},
    "prune.heads": {"targets": ["attention"]},
}
MASKS = {
    "prune.magnitude": {},
    "prune.random": {},
    "prune.quantile": {},
    "prune.structured_norm": {"targets": ["hidden"]},
    "prune.obs": {"targets": ["hidden", "head"]},
}


def train(network, data, *participants, optimizer="adam", steps=24):
    context = Context(seed=5, device=torch.device("cpu"), data=data)
    settings = Settings(OPTIMIZERS[optimizer], named_loss("cross_entropy", {}), steps=steps, ema=0.8)
    return fit(network, context, settings, participants)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("use", STRUCTURAL)
def test_moments_averages_and_masks_follow_every_cut_index_by_index(network, data, use, optimizer):
    hidden = network.module.hidden.weight
    network.masks["hidden.weight"] = (
        torch.rand(hidden.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    )
    watcher = Watcher(Config())
    schedule = Schedule(shape="linear", begin="6 steps", end="18 steps", every="6 steps")
    cutter = Scheduled(editor(use, amount=0.5, **STRUCTURAL[use]), schedule, "cutter")
    loop = train(network, data, watcher, cutter, optimizer=optimizer)
    moments = [one for one in loop.optimizer.state[hidden].values() if getattr(one, "dim", int)() == 2]
    assert moments, "there is something to follow"
    assert watcher.compared > 50
    assert (type(network.module).__name__ == "PlainGraph") == (use == "prune.heads")
    assert not network.module.training
    assert cutter.settled
    assert sum(isinstance(edit, Cut) for edit in network.edits) >= 6, "several cuts, one upon the other"
    sizes = {name: tuple(one.shape) for name, one in network.module.named_parameters()}
    assert {
        "prune.channels": sizes["inner.weight"][0] == sizes["back.weight"][1] == 4,
        "prune.neurons": sizes["hidden.weight"][0] == sizes["head.weight"][1] == 12,
        "prune.heads": sizes["attention.out_proj.weight"] == (16, 8),
    }[use]


@pytest.mark.parametrize("shape", ["cubic", "linear", "exponential"])
@pytest.mark.parametrize("use", MASKS)
def test_amounts_of_masks_follow_the_schedule(network, data, use, shape):
    seen = []

    class Count(Participant[Config]):
        def prepare(self, loop):
            self.loop = loop

        def on_edit(self, edits):
            held = [one for one in self.loop.model.weights(targets) if one.keep is not None]
            seen.append(sum(int((~one.keep).sum()) for one in held))

    targets = MASKS[use].get("targets", ["*"])
    schedule = Schedule(shape=shape, begin="4 steps", end="16 steps", every="4 steps", initial=0.2)
    pruner = Scheduled(editor(use, amount=0.75, **MASKS[use]), schedule, "pruner")
    train(network, data, Count(Config()), pruner)
    total = sum(one.tensor.numel() for one in network.weights(targets))
    wanted = [schedule.amount(point, pruner._points, 0.75) for point in pruner._points]
    assert len(seen) == len(wanted) == 4
    slack = 24 / total if use == "prune.structured_norm" else 0.01
    assert [one / total for one in seen] == pytest.approx(wanted, abs=slack)


def test_n_of_m_is_held_from_its_moment_on(network, data):
    schedule = Schedule(shape="one_shot", begin=0.5)
    pruner = Scheduled(editor("prune.nm", pattern="2:4", targets=["hidden", "head"]), schedule, "nm")
    train(network, data, pruner)
    for weight in (network.module.hidden.weight, network.module.head.weight):
        assert (weight.detach().view(-1, 4).count_nonzero(dim=1) == 2).all()


def test_every_editor_that_prunes_is_tried_here():
    built_in = {name for name in discover().passes if name.startswith("prune.")}
    assert built_in == {*STRUCTURAL, *MASKS, "prune.nm", "prune.blocks", "prune.finalize"}


def test_a_block_goes_between_two_steps(network, data):
    blocks = editor("prune.blocks", amount=0.5)
    train(network, data, Scheduled(blocks, Schedule(shape="one_shot", begin=0.5), "blocks"))
    assert len(list(network.module.parameters())) < 16


def test_a_captured_layer_keeps_the_model_from_becoming_a_graph(network, data):
    class Capturing(Participant[Config]):
        def prepare(self, loop):
            loop.capture("hidden")

    before = network.module.attention.in_proj_weight.detach().clone()
    cutter = Scheduled(editor("prune.heads", amount=0.5, targets=["attention"]), Schedule(shape="one_shot"))
    with pytest.raises(GraphError, match="captured layer holds on to the module"):
        train(network, data, Capturing(Config()), cutter, steps=3)
    assert torch.equal(network.module.attention.in_proj_weight, before)


def test_a_training_that_became_a_graph_goes_on_from_its_checkpoint(network, data, tmp_path):
    def run(model, resume=None, until=None):
        class Kill(Participant[Config]):
            def before_step(self, at):
                if at.step == until:
                    raise InterruptedError

        schedule = Schedule(shape="linear", begin="4 steps", end="16 steps", every="4 steps")
        cutter = Scheduled(editor("prune.heads", amount=0.5, targets=["attention"]), schedule, "cutter")
        context = Context(seed=5, device=torch.device("cpu"), data=data, folder=tmp_path, resume=resume)
        loss = named_loss("cross_entropy", {})
        settings = Settings(OPTIMIZERS["adam"], loss, epochs=3, checkpoint=True)
        fit(model, context, settings, [cutter, Kill(Config())])
        return model.module.state_dict()

    killed, again = network.copy(), network.copy()
    with pytest.raises(InterruptedError):
        run(killed, until=25)
    whole = run(again, resume=tmp_path / "checkpoints" / "epoch-0002")
    assert type(again.module).__name__ == "PlainGraph"
    for name, value in run(network).items():
        assert torch.equal(whole[name], value), name


@pytest.mark.parametrize("begin", [0.0, 0.5])
def test_weights_keep_their_dtype_while_they_train(network, data, begin):
    cast = Scheduled(editor("quantize.cast"), Schedule(shape="one_shot", begin=begin))
    with pytest.raises(GraphError, match="cannot change their dtype in training"):
        train(network, data, cast)
    assert network.module.head.weight.dtype == torch.float32
