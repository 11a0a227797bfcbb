"""What a user may hand to a quantizer that no quantizer can work with."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import DemiglaceError, GraphError, RecipeError, UsageError
from demiglace_quantizers import _adaround

LOOKING = [
    {"use": "quantize.static"},
    {"use": "quantize.smooth"},
    {"use": "quantize.weight_only", "bits": 4, "method": "gptq"},
    {"use": "quantize.weight_only", "bits": 4, "method": "adaround"},
    {"use": "quantize.rate"},
]
"""Passes that look at calibration data."""
POST_TRAINING = [
    {"use": "quantize.dynamic"},
    {"use": "quantize.dynamic", "granularity": "tensor"},
    {"use": "quantize.static"},
    {"use": "quantize.static", "bits": 4, "observer": "minmax"},
    {"use": "quantize.static", "observer": "percentile"},
    {"use": "quantize.weight_only", "bits": 2},
    {"use": "quantize.weight_only", "bits": 3, "symmetric": True, "method": "hqq"},
    {"use": "quantize.weight_only", "bits": 4, "group_size": 8, "method": "gptq"},
    {"use": "quantize.weight_only", "bits": 4, "method": "adaround"},
    {"use": "quantize.rate", "bytes": 1000},
    {"use": "quantize.rate", "bytes": 1000, "method": "rtn"},
    {"use": "quantize.cast"},
]
VALUES = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few steps of optimization: it is about what is refused and survived, not about how well."""
    monkeypatch.setattr(_adaround, "_STEPS", 50)


def _made():
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def _run(module, *passes, data=(VALUES,), **given):
    recipe = {"name": "q", "pass": list(passes)}
    return demiglace.run(recipe, model=module, data=data, example_inputs=VALUES[:2], **given)


def _untouched(module):
    expected = _made()
    return all(torch.equal(*pair) for pair in zip(module.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("options", LOOKING)
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], UsageError, "empty"),
        ([torch.zeros(0, 8)], DemiglaceError, "empty|no example"),
        ([VALUES, VALUES.clone().index_fill_(1, torch.tensor([2]), float("nan"))], GraphError, "NaN"),
        ([VALUES, VALUES / 0], GraphError, "infinity"),
        ([torch.randn(3, 7)], DemiglaceError, r"\[3, 7\]"),
    ],
)
def test_calibration_data_that_is_empty_spoilt_or_of_another_shape_is_refused(options, data, error, message):
    module = _made()
    with pytest.raises(error, match=message):
        _run(module, options, data={"calibration": data})
    assert _untouched(module)


@pytest.mark.parametrize("options", POST_TRAINING)
@pytest.mark.parametrize("spoil", ["zero rows", "zero layer", "zero input", "constant input", "tiny", "huge"])
def test_degenerate_weights_and_activations_give_finite_outputs(options, spoil):
    module, data = _made(), VALUES
    weight = module[1].weight.data
    if spoil == "zero rows":
        weight[::2] = 0
    elif spoil == "zero layer":
        weight.zero_()
        module[1].bias.data.zero_()
    elif spoil == "tiny":
        weight.mul_(1e-30)
    elif spoil == "huge":
        weight.mul_(1e15)
    elif spoil == "zero input":
        data = torch.zeros(32, 8)
    else:
        data = torch.full((32, 8), 3.0)
    with torch.no_grad():
        before = module(VALUES)
        after = _run(module, options, data=[data]).model(VALUES)
    assert after.isfinite().all()
    if spoil in {"zero rows", "zero layer"}:
        assert (module[1].weight[::2] == 0).all()
    if spoil in {"tiny", "huge"} and options.get("bits", 8) == 8:
        error = float((after - before).double().square().mean() / before.double().square().mean())
        assert error < 1e-2


@pytest.mark.parametrize("options", POST_TRAINING)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(options, poison):
    module = _made()
    module[3].weight.data[1, 2] = poison
    with pytest.raises(DemiglaceError, match=r"3\.weight"):
        _run(module, options)


class Hollow(nn.Module):
    """One of its layers has no outputs."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.none = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 0)

    def forward(self, x):
        hidden = self.body(x).relu()
        return torch.cat([self.head(hidden), self.none(hidden)], 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("options", POST_TRAINING)
def test_a_layer_without_weights_is_left_alone(options):
    result = _run(Hollow().eval(), options)
    assert result.model(VALUES).shape == (32, 4)
    assert result.model(VALUES).isfinite().all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use": "quantize.weight_only", "bits": 5}, "8, 6, 4, 3, 2"),
        ({"use": "quantize.weight_only", "bits": 0}, "8, 6, 4, 3, 2"),
        ({"use": "quantize.static", "bits": 2}, "8, 6, 4"),
        (
            {"use": "quantize.rate", "bits_per_weight": 3.0, "bytes": 100},
            "bits_per_weight or bytes, not both",
        ),
        ({"use": "quantize.weight_only", "bits": 4, "group_size": 1}, "2"),
        ({"use": "quantize.static", "observer": "max"}, '"minmax", "percentile", "mse"'),
    ],
)
def test_options_that_do_not_fit_say_what_does_before_anything_runs(options, told):
    with pytest.raises(RecipeError) as caught:
        demiglace.check({"name": "q", "pass": [options]})
    assert told in str(caught.value)


def test_groups_that_fit_no_layer_name_those_that_do():
    with pytest.raises(RecipeError, match=r"groups of 7 do not divide its rows of 8; 8 do"):
        _run(_made(), {"use": "quantize.weight_only", "bits": 4, "group_size": 7})


@pytest.mark.parametrize("options", POST_TRAINING[:-1])
def test_a_model_that_is_quantized_already_is_not_quantized_again(options):
    module = _run(_made(), {"use": "quantize.weight_only"}).model
    with pytest.raises(RecipeError, match="quantized already"):
        _run(module, options)


@pytest.mark.parametrize("options", POST_TRAINING[:-1])
def test_a_quantized_model_refuses_training_at_plan_time(options):
    fit = {"use": "train.supervised", "epochs": 1}
    recipe = {"name": "q", "pass": [options, fit]}
    with pytest.raises(RecipeError, match=r"model\.trainable"):
        demiglace.check(recipe)
    # The same of a model that somebody else quantized, handed in.
    module = _run(_made(), options).model
    labelled = [(VALUES, torch.zeros(32, dtype=torch.long))]
    with pytest.raises(RecipeError, match="cannot be trained"):
        _run(module, fit, data={"train": labelled})


def test_layers_beside_stored_integers_can_be_trained_but_not_before_integer_arithmetic():
    fit = {"use": "train.supervised", "epochs": 2}
    labelled = [(VALUES, VALUES[:, :4].argmax(1))]
    part = {"use": "quantize.weight_only", "targets": ["3"]}
    module = _made()
    before = module[1].weight.detach().clone()
    _run(module, part, fit, data={"train": labelled})
    assert not torch.equal(module[1].weight, before)
    integer = {"use": "quantize.dynamic", "targets": ["3"]}
    with pytest.raises(RecipeError, match=r"model\.trainable"):
        demiglace.check({"name": "q", "pass": [integer, fit]})
    module = _run(_made(), integer).model
    with pytest.raises(RecipeError, match="layer '3' computes on integers"):
        _run(module, fit, data={"train": labelled})


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_inputs_that_all_are_one_vector_make_a_singular_matrix_that_is_survived(method):
    module = _made()[1:]
    values = VALUES[:1].expand(32, -1).contiguous()
    with torch.no_grad():
        before = module(values)
        result = _run(module, {"use": "quantize.weight_only", "bits": 4, "method": method}, data=[values])
        after = result.model(values)
    assert torch.nn.functional.cosine_similarity(after[0], before[0], dim=0) > 0.99


def test_a_failed_calibration_leaves_modes_buffers_and_random_numbers():
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).train()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    with pytest.raises(GraphError, match="NaN"):
        _run(module, {"use": "quantize.static"}, data=[VALUES, VALUES * float("nan")])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(x > 3, np.nan, x), "NaN or infinity"),
        (lambda x: np.where(x > 3, np.inf, x), "NaN or infinity"),
        (lambda x: x[:0], "too few"),
        (lambda x: x[:, :, :20], "does not take the data's inputs"),
    ],
    ids=["nan", "infinity", "empty", "shape"],
)
def test_data_that_cannot_calibrate_is_told_with_its_place_in_the_recipe(spoil, message, tmp_path):
    values = spoil(np.random.RandomState(0).randn(64, 1, 28, 28).astype("f"))
    np.savez(tmp_path / "data.npz", x=values, y=np.zeros(len(values), dtype="i8"))
    data = f'[data]\nuse = "npz"\npath = {str(tmp_path / "data.npz")!r}\n'
    (tmp_path / "recipe.toml").write_text(
        f'name = "x"\n[model]\nuse = "lenet"\n{data}[[pass]]\nuse = "quantize.static"\n'
    )
    with pytest.raises(DemiglaceError, match=message) as caught:
        demiglace.run(tmp_path / "recipe.toml")
    place = caught.value.faults[0].place
    assert (place.line, place.column) == (5, 7)
