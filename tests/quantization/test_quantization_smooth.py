"""Smoothing: nothing changes but where the ranges are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import demiglace
from demiglace.errors import DemiglaceError, RecipeError


class PreNorm(nn.Module):
    """A transformer block whose norms only linear layers read, grouped keys and values, and a gate."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.RMSNorm(16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.out = nn.Linear(16, 16)
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = self.norm1(x)
        query = self.query(y).unflatten(-1, (4, 4)).transpose(1, 2)
        key, value = (layer(y).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.key, self.value))
        key, value = (one.repeat_interleave(2, 1) for one in (key, value))
        x = x + self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(x)


class Fused(nn.Module):
    """One projection for queries, keys and values: only its values may take a factor; a fixed last layer."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, -1)
        weights = (query @ key.transpose(1, 2)).softmax(-1)
        x = x + self.out(weights @ value)
        y = F.relu(self.fc1(x))
        return self.fc3(F.gelu(self.fc2(y)) + y)


def _made(kind, width):
    torch.manual_seed(0)
    module = kind().eval()
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(4, 6, width, generator=generator) for _ in range(4)]
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.data = torch.rand(len(parameter), generator=generator) + 0.5
            parameter.data[3] *= 100
    return module, data


def _smooth(module, data, *later, **options):
    recipe = {"name": "s", "pass": [{"use": "quantize.smooth", **options}, *later]}
    return demiglace.run(recipe, model=module, data=data, example_inputs=data[0]).record.steps[0]


def _outputs(module, data):
    with torch.no_grad():
        return torch.cat([module(one) for one in data])


def test_a_smoothed_model_computes_the_same_to_the_last_bit():
    module, data = _made(PreNorm, 16)
    before, weight = _outputs(module, data), module.down.weight.clone()
    step = _smooth(module, data)
    assert torch.equal(_outputs(module, data), before)
    assert sorted(step.figures["smoothed"]) == ["down", "gate", "key", "out", "query", "up", "value"]
    assert step.left_alone == {"head": "nothing that a factor can go into makes its inputs"}
    assert not torch.equal(module.down.weight, weight)


def test_ranges_meet_halfway():
    module, data = _made(PreNorm, 16)
    seen = []
    module.query.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))

    def spreads():
        seen.clear()
        _outputs(module, data)
        inputs = torch.cat(seen).flatten(0, 1).abs().amax(0)
        weights = torch.stack(
            [layer.weight.abs().amax(0) for layer in (module.query, module.key, module.value)]
        )
        return inputs, weights.amax(0)

    inputs, weights = spreads()
    _smooth(module, data, alpha=0.5, targets=["query", "key", "value"])
    after, columns = spreads()
    wanted = (inputs / weights).sqrt()
    factor = inputs / after
    torch.testing.assert_close(columns / weights, factor)
    assert ((factor / wanted).log2().abs() <= 0.5 + 1e-5).all()
    assert after.amax() / after.amin() < inputs.amax() / inputs.amin() / 5


def test_only_the_rows_of_values_take_factors_where_one_layer_makes_queries_and_keys_too():
    module, data = _made(Fused, 8)
    module.qkv.weight.data[20] *= 64
    weight = module.qkv.weight.detach().clone()
    before = _outputs(module, data)
    step = _smooth(module, data)
    assert torch.equal(_outputs(module, data), before)
    assert step.figures["smoothed"] == ["out"]
    assert torch.equal(module.qkv.weight[:16], weight[:16])
    assert not torch.equal(module.qkv.weight[16:], weight[16:])
    # fc1 is read by fc2 and by an addition, fc2 by a gelu.
    assert "aten.add" in step.left_alone["fc2"]
    assert set(step.left_alone) == {"qkv", "fc1", "fc2", "fc3"}


def test_channels_that_are_always_zero_keep_their_scale_and_zeros_of_masks_stay():
    module, data = _made(PreNorm, 16)
    module.norm1.weight.data[5] = module.norm1.bias.data[5] = 0
    module.query.weight.data[:, 2] = module.key.weight.data[:, 2] = module.value.weight.data[:, 2] = 0
    norm = module.norm1.weight.detach().clone()
    recipe = [{"use": "prune.magnitude", "amount": 0.5}, {"use": "quantize.smooth"}]
    result = demiglace.run({"name": "s", "pass": recipe}, model=module, data=data, example_inputs=data[0])
    assert module.norm1.weight[2] == norm[2]
    assert module.norm1.weight[5] == 0
    assert all((module.get_parameter(name)[~keep] == 0).all() for name, keep in result.graph.masks.items())
    assert all(one.isfinite().all() for one in module.parameters())


def test_outliers_hurt_an_integer_model_less_once_smoothed():
    errors = []
    for passes in ([], [{"use": "quantize.smooth"}]):
        module, data = _made(PreNorm, 16)
        before = _outputs(module, data)
        recipe = {"name": "s", "pass": [*passes, {"use": "quantize.static", "observer": "minmax"}]}
        demiglace.run(recipe, model=module, data=data, example_inputs=data[0])
        errors.append(float((_outputs(module, data) - before).square().mean()))
    assert errors[1] < errors[0] / 2


def test_layers_that_share_a_reader_are_smoothed_together_or_not_at_all():
    module, data = _made(PreNorm, 16)
    step = _smooth(module, data, targets=["query", "down"])
    assert step.figures["smoothed"] == ["down"]
    assert "'key.weight', which is not selected" in step.left_alone["query"]


def test_a_model_with_nothing_to_smooth_is_an_error_that_says_why():
    module = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    with pytest.raises(DemiglaceError, match="nothing that a factor can go into"):
        _smooth(module, [torch.randn(4, 8)])


def test_smoothing_needs_data_and_comes_before_the_quantizer():
    with pytest.raises(RecipeError, match="calibration"):
        demiglace.run(
            {"name": "s", "pass": [{"use": "quantize.smooth"}]},
            model=_made(PreNorm, 16)[0],
            example_inputs=torch.randn(2, 6, 16),
        )
    with pytest.raises(RecipeError, match=r"weights\.float"):
        demiglace.check({"name": "s", "pass": [{"use": "quantize.dynamic"}, {"use": "quantize.smooth"}]})


def test_a_model_that_is_smooth_already_says_so_and_may_be_left_as_it_is():
    torch.manual_seed(0)
    module, data = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)).eval(), [torch.randn(32, 8)]
    module[0].weight.data[3] = 50
    assert _smooth(module, data).figures["smoothed"] == ["1"]
    before = {name: one.clone() for name, one in module.state_dict().items()}
    with pytest.raises(DemiglaceError, match=r"changed nothing .1: the ranges of its inputs' channels are"):
        _smooth(module, data)
    assert _smooth(module, data, allow_noop=True).figures["smoothed"] == []
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())


def test_a_layer_that_needs_no_factor_is_reported_beside_those_that_do():
    module, data = _made(PreNorm, 16)
    _smooth(module, data, targets=["query", "key", "value"])
    module.norm2.weight.data.zero_()
    step = _smooth(module, data)
    assert sorted(step.figures["smoothed"]) == ["down", "out"]
    assert "alpha = 0.5 already" in step.left_alone["query"]
    assert "always 0" in step.left_alone["up"]
    assert step.left_alone.keys() == {"query", "key", "value", "gate", "up", "head"}


def test_a_model_that_is_called_without_a_batch_is_smoothed():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 3)).eval()
    data = [torch.randn(8) for _ in range(3)]
    with torch.no_grad():
        before = module(data[0])
        demiglace.run({"pass": [{"use": "quantize.smooth"}]}, model=module, data=data)
        assert torch.allclose(module(data[0]), before, atol=1e-6)


def test_an_example_without_items_shows_nothing_to_smooth():
    module = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 3))
    data = [torch.zeros(0, 8), torch.randn(4, 8)]
    with pytest.raises(DemiglaceError, match="no linear layer whose inputs can be smoothed"):
        demiglace.run({"pass": [{"use": "quantize.smooth"}]}, model=module, data=data)
