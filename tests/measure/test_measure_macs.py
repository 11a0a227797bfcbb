"""Multiply-accumulates equal those counted by hand, and counting leaves the model alone."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch._higher_order_ops import while_loop
from torch.nn import functional as F

import demiglace
from demiglace.graph import Example
from demiglace.measure import macs_of


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)


ATTENTION = 2 * 5 * 16 * 16 * 4 + 2 * 2 * 5 * 5 * 16  # four projections, two products of 5 by 5 by 16


@pytest.mark.parametrize(
    ("module", "shape", "by_hand"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 10), 2 * 8 * 100 * 27),
        (nn.Conv2d(4, 8, 3, groups=4, padding=1), (1, 4, 10, 10), 8 * 100 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, dilation=2), (1, 3, 11, 11), 8 * 16 * 27),
        (nn.ConvTranspose2d(3, 8, 2, stride=2), (1, 3, 5, 5), 3 * 25 * 8 * 4),
        (nn.Conv1d(4, 6, 3), (2, 4, 9), 2 * 6 * 7 * 12),
        (nn.Linear(10, 7), (4, 10), 4 * 70),
        (nn.Linear(10, 7), (10,), 70),
        (nn.Linear(10, 7, bias=False), (2, 3, 10), 6 * 70),
        (nn.LSTM(8, 16, batch_first=True), (2, 5, 8), 2 * 5 * (8 + 16) * 64),
        (nn.GRU(8, 16, bidirectional=True), (5, 2, 8), 2 * 2 * 5 * (8 + 16) * 48),
        (Attention(), (2, 4, 6, 8), 2 * 2 * 4 * 6 * 6 * 8),
        (
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            (2, 5, 16),
            ATTENTION + 2 * 5 * 16 * 32 * 2,
        ),
        (nn.ReLU(), (3, 3), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_macs_equal_those_counted_by_hand(module, shape, by_hand):
    assert macs_of(module, Example((torch.zeros(shape),))) == by_hand


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_counts_its_products(need_weights):
    module = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.zeros(2, 5, 16)
    example = Example((x, x), {"value": x, "need_weights": need_weights})
    assert macs_of(module, example) == ATTENTION


@pytest.mark.parametrize(
    ("name", "published"), [("resnet18", 1.814), ("mobilenet_v2", 0.301), ("swin_t", 4.491)]
)
def test_torchvision_networks_have_their_published_macs(name, published):
    with torch.device("meta"):
        module = torchvision.models.get_model(name)
    example = Example((torch.zeros(1, 3, 224, 224, device="meta"),))
    assert macs_of(module, example) / 1e9 == pytest.approx(published, abs=1e-3)


class Counting(nn.Module):
    """Takes a way that depends on values and writes to a buffer in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y = self.norm(self.linear(x)) + torch.rand(3)
        return self.linear(y) if x.sum().item() > 0 else y


@pytest.mark.parametrize(("value", "layers"), [(1.0, 2), (-1.0, 1)])
def test_a_way_that_depends_on_values_is_counted_as_it_goes(value, layers):
    assert macs_of(Counting(), Example((torch.full((2, 3), value),))) == layers * 2 * 9


@pytest.mark.parametrize(
    "model", [Counting(), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())]
)
def test_counting_leaves_no_trace(model):
    model.train()[1].eval() if isinstance(model, nn.Sequential) else model.norm.eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random, settings = torch.get_rng_state(), _settings()
    macs_of(model, Example((torch.ones(2, 3),)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert _settings() == settings
    assert all(type(parameter) is nn.Parameter and parameter.grad is None for parameter in model.parameters())


def _settings() -> tuple[bool, ...]:
    return torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled, torch.is_grad_enabled()


def test_an_example_that_does_not_fit_raises_what_the_model_raises():
    with pytest.raises(RuntimeError, match="shape"):
        macs_of(nn.Linear(3, 3), Example((torch.zeros(2, 4),)))


class Looping(nn.Module):
    """Calls an operator of torch that runs functions, which its counter does not know."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        def unfinished(count, _):
            return count < 3

        def step(count, value):
            return count + 1, self.layer(value)

        return while_loop(unfinished, step, (torch.tensor(0), x))[1]


def test_a_model_whose_products_cannot_be_counted_has_an_unknown_number():
    example = Example((torch.ones(2, 3),))
    assert macs_of(Looping(), example) is None
    result = demiglace.run(
        {"pass": [{"use": "prune.magnitude", "amount": 0.5}]}, model=Looping(), example_inputs=example.args
    )
    assert result.steps[0].after.macs is None
    assert result.metrics["zeros"] == 4


class Caching(nn.Module):
    """Keeps a tensor for the next call."""

    def __init__(self):
        super().__init__()
        self.layer, self.kept = nn.Linear(3, 2), None

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.full(x.shape, 0.5)
        return self.layer(x * self.kept)


def test_a_tensor_that_a_forward_keeps_does_not_stay_without_values():
    module = Caching()
    example = Example((torch.ones(2, 3),))
    assert macs_of(module, example) == 2 * 3 * 2
    assert module.kept is None
    assert module(*example.args).isfinite().all()
