"""What may be wrong or unusual with a model, its weights and its data, for all that removes and repairs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import demiglace
from demiglace.data import Data
from demiglace.errors import DemiglaceError, GraphError
from demiglace.graph import Example, Mask, ModelGraph, apply, apply_verified
from demiglace.passes import Context
from demiglace_pruners.blocks import Blocks, BlocksConfig
from demiglace_pruners.channels import Channels, ChannelsConfig
from demiglace_pruners.heads import Heads, HeadsConfig
from demiglace_pruners.neurons import Neurons, NeuronsConfig
from demiglace_pruners.obs import Obs, ObsConfig
from demiglace_repairs.bias import BiasConfig, BiasRepair
from demiglace_repairs.least_squares import LeastSquaresConfig, LeastSquaresRepair

TOKENS = torch.randn(24, 5, 16, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """A layer of a transformer: heads, hidden neurons, two branches, a stream of channels."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.second(torch.relu(self.first(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.layers, self.head = (
            nn.Linear(16, 16),
            nn.Sequential(Layer(), Layer()),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean(1))


pytestmark = pytest.mark.slow

PASSES = {
    "channels": Channels(ChannelsConfig(amount=0.5)),
    "heads": Heads(HeadsConfig(amount=0.5)),
    "neurons": Neurons(NeuronsConfig(amount=0.5)),
    "blocks": Blocks(BlocksConfig(amount=0.5)),
    "blocks by change": Blocks(BlocksConfig(amount=0.5, importance="change")),
    "channels in steps": Channels(ChannelsConfig(amount=0.5, steps=2)),
    "channels by data": Channels(ChannelsConfig(amount=0.5, importance="wanda")),
    "obs": Obs(ObsConfig(amount=0.5)),
}
every_pass = pytest.mark.parametrize("name", PASSES)


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return ModelGraph(Net().eval().to(dtype), Example((TOKENS[:2].to(dtype),)))


def context(dtype=torch.float32, original=None, inputs=TOKENS):
    batches = [(part.to(dtype), torch.arange(8) % 4) for part in inputs.split(8)]
    return Context(0, torch.device("cpu"), data=Data.of(batches), original=original)


def run(editor, one, where):
    apply_verified(one, list(editor.edits(one, where)))[0].commit()
    return one


def size(one):
    return sum(int((tensor != 0).sum()) for tensor in one.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@every_pass
def test_models_of_another_precision_keep_it(name, dtype):
    before = size(model(dtype))
    pruned = run(PASSES[name], model(dtype), context(dtype))
    assert {one.dtype for one in pruned.module.parameters()} == {dtype}
    assert size(pruned) < before
    assert bool(pruned.module(TOKENS.to(dtype)).isfinite().all())


@every_pass
def test_frozen_parameters_are_pruned_and_stay_frozen_and_the_others_train(name):
    one = model()
    one.module.layers.requires_grad_(False)
    pruned = run(PASSES[name], one, context())
    for key, parameter in pruned.module.named_parameters():
        assert parameter.requires_grad == (not key.startswith("layers."))
    pruned.module(TOKENS).sum().backward()
    assert pruned.module.head.weight.grad is not None


@every_pass
def test_weights_that_are_not_a_number_are_refused_in_words_and_stay(name):
    one = model()
    with torch.no_grad():
        one.module.layers[0].second.weight[3, 5] = float("nan")
        one.module.layers[0].attention.in_proj_weight[2, 2] = float("nan")
    before = {key: tensor.clone() for key, tensor in one.module.state_dict().items()}
    with pytest.raises(DemiglaceError, match=r"NaN|not finite"):
        run(PASSES[name], one, context())
    after = one.module.state_dict()
    assert all(torch.equal(after[key].nan_to_num(7), was.nan_to_num(7)) for key, was in before.items())


@pytest.mark.parametrize(
    ("editor", "words"),
    [
        (Channels(ChannelsConfig(amount=0.5, targets=["head"])), "select no channels"),
        (Heads(HeadsConfig(amount=0.5, targets=["layers.*.first"])), "select no heads"),
        (Neurons(NeuronsConfig(amount=0.5, targets=["stem"])), "select no hidden neurons"),
        (Blocks(BlocksConfig(amount=0.5, targets=["head"])), "select no residual branch"),
    ],
)
def test_targets_without_anything_to_remove_are_refused_in_words(editor, words):
    with pytest.raises(GraphError, match=words) as caught:
        list(editor.edits(model(), context()))
    assert "demiglace graph" in str(caught.value)


@pytest.mark.parametrize(
    ("editor", "left"),
    [
        (Neurons(NeuronsConfig(amount=1.0)), {"layers.0.first.weight": (1, 16)}),
        (Neurons(NeuronsConfig(amount=0.9, min_kept=8)), {"layers.0.first.weight": (8, 16)}),
        (Neurons(NeuronsConfig(amount=1.0, scope="global")), {"layers.0.first.weight": (1, 16)}),
        (Heads(HeadsConfig(amount=1.0)), {"layers.0.attention.in_proj_weight": (12, 16)}),
        (Neurons(NeuronsConfig(amount=0.99, of="parameters")), {"layers.0.first.weight": (1, 16)}),
    ],
)
def test_amounts_that_would_empty_a_layer_leave_the_least_and_say_so(editor, left):
    said: list[str] = []
    where = context()
    where.on_warning = said.append
    pruned = run(editor, model(), where)
    for name, shape in left.items():
        assert tuple(pruned.module.get_parameter(name).shape) == shape
    [warning] = said
    assert "was asked" in warning
    assert "'layers.0" in warning


def test_amounts_that_leave_enough_warn_of_nothing():
    said: list[str] = []
    where = context()
    where.on_warning = said.append
    run(Neurons(NeuronsConfig(amount=0.5, round_to=8)), model(), where)
    assert said == []


class Tied(nn.Module):
    """One table for words and for their logits, and one layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.words, self.twice, self.out = (
            nn.Embedding(11, 12),
            nn.Linear(12, 12),
            nn.Linear(12, 11, bias=False),
        )
        self.inner, self.back = nn.Linear(12, 20), nn.Linear(20, 12)
        self.out.weight = self.words.weight

    def forward(self, x):
        x = self.twice(torch.relu(self.twice(self.words(x))))
        return self.out(x + self.back(torch.relu(self.inner(x))))


@pytest.mark.parametrize("name", ["channels", "neurons", "channels in steps", "channels by data", "obs"])
def test_shared_layers_and_tied_weights_stay_tied_and_are_right(name):
    torch.manual_seed(0)
    words = torch.randint(0, 11, (24, 5), generator=torch.Generator().manual_seed(1))
    net = Tied()
    one = ModelGraph(net.eval(), Example((words[:2],)))
    where = Context(0, torch.device("cpu"), data=Data.of([(words, words % 4)]))
    before = size(one)
    pruned = run(PASSES[name], one, where)
    assert size(pruned) < before
    module = pruned.module
    assert module.get_parameter("out.weight") is module.get_parameter("words.weight")
    module(words).sum().backward()


class Mapped(nn.Module):
    """Takes a tuple and a dictionary, gives a dictionary that holds a tuple."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, pair, more):
        x = pair[0] + pair[1] * more["scale"]
        hidden = self.net.layers(self.net.stem(x))
        return {"logits": self.net.head(hidden.mean(1)), "both": (hidden.mean(), x)}


@pytest.mark.parametrize("name", ["channels", "heads", "neurons", "blocks", "channels in steps"])
def test_tuples_and_dictionaries_go_in_and_come_out(name):
    torch.manual_seed(0)
    inputs = ((TOKENS[:2], TOKENS[2:4]), {"scale": torch.ones(2, 1, 1)})
    one = ModelGraph(Mapped().eval(), Example(inputs))
    shapes = {"logits": (2, 4), "both": ((), (2, 5, 16))}
    pruned = run(PASSES[name], one, context())
    found = pruned.module(*inputs)
    assert tuple(found["logits"].shape) == shapes["logits"]
    assert [tuple(each.shape) for each in found["both"]] == list(shapes["both"])


REPAIRS = {"bias": BiasRepair(BiasConfig()), "least squares": LeastSquaresRepair(LeastSquaresConfig())}


@pytest.mark.parametrize("inputs", ["zero", "constant", "one example"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_calibration_data_that_tells_nothing_leaves_finite_weights(repair, inputs):
    """The inputs' second moments are singular: of rank 0 or 1."""
    data = {
        "zero": TOKENS * 0,
        "constant": torch.ones_like(TOKENS),
        "one example": TOKENS[:1].expand(24, 5, 16),
    }
    original = model()
    pruned = run(PASSES["neurons"], model(), context())
    where = context(original=original, inputs=data[inputs])
    apply(pruned, list(REPAIRS[repair].edits(pruned, where))).commit()
    assert all(bool(one.isfinite().all()) for one in pruned.module.parameters())
    largest = max(float(one.detach().abs().max()) for one in pruned.module.parameters())
    assert largest < 100 * max(float(one.detach().abs().max()) for one in original.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("repair", REPAIRS)
def test_repairs_keep_the_precision(repair, dtype):
    original = model(dtype)
    pruned = run(PASSES["neurons"], model(dtype), context(dtype))
    edits = list(REPAIRS[repair].edits(pruned, context(dtype, original)))
    apply(pruned, edits).commit()
    assert edits
    assert {one.dtype for one in pruned.module.parameters()} == {dtype}
    assert bool(pruned.module(TOKENS.to(dtype)).isfinite().all())


@pytest.mark.parametrize("repair", REPAIRS)
def test_repairs_of_weights_that_are_not_a_number_are_refused_in_words(repair):
    original = model()
    pruned = model()
    apply(pruned, [Mask("stem.weight", torch.rand(16, 16) > 0.5)]).commit()
    pruned.module.stem.weight.data[0, 0] = float("nan")
    with pytest.raises(DemiglaceError, match="NaN"):
        list(REPAIRS[repair].edits(pruned, context(original=original)))


def test_inputs_that_do_not_fit_are_one_clear_error():
    recipe = {"pass": [{"use": "prune.blocks", "amount": 0.5}]}
    with pytest.raises(DemiglaceError, match="does not take the data's inputs"):
        demiglace.run(recipe, model=Net(), example_inputs=torch.randn(2, 5, 17))
