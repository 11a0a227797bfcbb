"""A training that fails or is interrupted leaves no layer that rounds: the caller's own are back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import demiglace
from demiglace.errors import DemiglaceError, Diverged, Interrupted
from demiglace.quantization import FakeQuantized

QAT = {"id": "qat", "use": "quantize.qat"}
SHARE = {"id": "share", "use": "share.kmeans", "clusters": 4, "start": 0.2}
CUTS = {
    "use": "prune.channels",
    "amount": 0.5,
    "targets": ["0"],
    "schedule": {"shape": "one_shot", "begin": 0.2},
}
MASKS = {"use": "prune.magnitude", "amount": 0.5, "schedule": {"end": 0.5}}


class Attending(nn.Module):
    """A layer inside another one, and one that is not called but read."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.norm(self.encoder(x.unsqueeze(1)).squeeze(1)))


def perceptron():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def made(kind):
    torch.manual_seed(3)
    return kind().eval()


@pytest.fixture
def loader():
    values = torch.randn(80, 8, generator=torch.Generator().manual_seed(1))
    return list(zip(values.split(8), values[:, :4].argmax(1).split(8), strict=True))


def recipe(*participants):
    fit = {"use": "train.supervised", "epochs": 3, "optimizer": {"name": "Adam", "lr": 0.01}}
    return {"name": "u", "pass": [fit | {"with": list(participants)}]}


def failing(after, how):
    """The loss of a caller's own, which fails in this way after some batches."""
    calls = 0

    def step(module, batch):
        nonlocal calls
        calls += 1
        loss = F.cross_entropy(module(*batch.args), batch.labels)
        if calls > after and isinstance(how, BaseException):
            raise how
        return loss * float("nan") if calls > after else loss

    return step


def shown(module):
    """All that tells one module's layers from another's but the values of the weights."""
    layers = {
        name: (type(one), one.training, vars(one).keys(), len(one._forward_pre_hooks))
        for name, one in module.named_modules()
    }
    return layers, list(module.state_dict()), [id(one) for one in module.parameters()]


@pytest.mark.parametrize("kind", [perceptron, Attending])
@pytest.mark.parametrize("participant", [QAT, SHARE], ids=["qat", "kmeans"])
@pytest.mark.parametrize(
    ("how", "raised"),
    [
        (ValueError("of the caller"), DemiglaceError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (Interrupted(15), Interrupted),
        ("nan", Diverged),
    ],
    ids=["error", "ctrl-c", "stopped", "nan"],
)
def test_the_layers_are_the_callers_own_with_the_weights_trained_so_far(
    kind, participant, how, raised, loader
):
    module = made(kind)
    before, first = shown(module), [one.clone() for one in module.parameters()]
    with pytest.raises(raised):
        demiglace.run(recipe(participant), model=module, data=loader, step=failing(15, how))
    assert shown(module) == before
    assert all(one.isfinite().all() for one in module.parameters())
    assert not all(map(torch.equal, module.parameters(), first))
    # It is as good a model as any: a whole training goes through.
    demiglace.run(recipe(participant), model=module, data=loader)
    assert shown(module) != before


def test_cuts_made_meanwhile_stay_in_the_layers_that_come_back(loader):
    module = made(perceptron)
    with pytest.raises(DemiglaceError, match="of the caller"):
        demiglace.run(
            recipe(SHARE, CUTS), model=module, data=loader, step=failing(20, ValueError("of the caller"))
        )
    assert [type(one) for one in module] == [nn.Linear, nn.ReLU, nn.Linear]
    assert (module[0].out_features, module[2].in_features) == (8, 8)
    assert module[0].weight.shape == (8, 8)
    assert torch.equal(
        module[2](torch.ones(1, 8)), F.linear(torch.ones(1, 8), module[2].weight, module[2].bias)
    )


def test_zeros_of_a_pruner_beside_it_stay(loader):
    module = made(perceptron)
    with pytest.raises(KeyboardInterrupt):
        demiglace.run(recipe(QAT, MASKS), model=module, data=loader, step=failing(25, KeyboardInterrupt()))
    weights = torch.cat([module[0].weight.flatten(), module[2].weight.flatten()])
    assert (weights == 0).sum() == weights.numel() // 2


def test_a_participant_that_cannot_begin_leaves_none_of_another(loader):
    module = made(perceptron)
    before = shown(module)
    with pytest.raises(DemiglaceError, match="trained for integers already"):
        demiglace.run(recipe(QAT, SHARE), model=module, data=loader)
    assert shown(module) == before


@pytest.mark.parametrize("begins", [True, False], ids=["in the block", "before it"])
def test_a_loop_of_the_callers_own_gets_them_back_and_can_save(begins, loader, tmp_path):
    module = made(perceptron)
    before = shown(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    table = recipe(QAT) if begins else recipe(QAT, SHARE)
    session = demiglace.participants(table, module, optimizer, data=loader)
    with pytest.raises(KeyboardInterrupt if begins else DemiglaceError), session:  # noqa: PT012
        assert isinstance(module[0], FakeQuantized)
        F.cross_entropy(module(loader[0][0]), loader[0][1]).backward()
        optimizer.step()
        raise KeyboardInterrupt
    assert shown(module) == before
    session.save(tmp_path / "saved")
    opened = demiglace.load(tmp_path / "saved", made(perceptron))
    assert torch.equal(opened(loader[0][0]), module(loader[0][0]))


def test_an_interruption_within_a_layer_leaves_no_rounded_weight_in_it(loader, monkeypatch):
    module = made(Attending)
    before, calls, computed = shown(module), [0], FakeQuantized.computed

    def interrupted(layer, name):
        calls[0] += 1
        if calls[0] == 2:  # the projection's, when attention has its own already
            raise KeyboardInterrupt
        return computed(layer, name)

    monkeypatch.setattr(FakeQuantized, "computed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demiglace.run(recipe(QAT), model=module, data=loader)
    assert shown(module) == before
