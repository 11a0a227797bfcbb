"""Models of forms that a library's or a user's code may have, and that no other test has."""

import copy

import pytest
import torch
from quantizing import POST_TRAINING, STATIC, VALUES, WEIGHTS, distance, run, training
from torch import nn
from torch.nn.utils import parametrize

import demiglace
from demiglace.errors import GraphError, RecipeError, UsageError
from demiglace.quantization import TensorError


class Hooked(nn.Module):
    """What its layers compute is changed by hooks."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)
        self.body.register_forward_hook(lambda layer, inputs, output: output * 2)
        self.head.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("one", [*POST_TRAINING, training("quantize.qat"), training("share.kmeans")])
def test_hooks_at_a_layer_stay_where_integers_take_its_place(one, tmp_path):
    torch.manual_seed(0)
    module = Hooked()
    original = copy.deepcopy(module)
    result = run(module, one, out=tmp_path / "run")
    assert distance(module, original) < 0.1
    opened = demiglace.load(tmp_path / "run", model=Hooked)
    assert torch.equal(opened(VALUES), result.model(VALUES))


class Volumes(nn.Module):
    """Convolutions in three dimensions, in both directions."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 6, 3, stride=2), nn.ConvTranspose3d(6, 4, 3, stride=2, groups=2)

    def forward(self, x):
        return self.up(self.down(x).relu())


@pytest.mark.parametrize("options", [{}, {"bits": 4, "group_size": 9}, {"method": "gptq"}], ids=str)
def test_weights_of_volumes_are_integers_in_both_directions(options, tmp_path):
    torch.manual_seed(0)
    module, volumes = Volumes(), torch.randn(8, 1, 7, 7, 7)
    original, one = copy.deepcopy(module), {"use": "quantize.weight_only", **options}
    result = demiglace.run(
        {"pass": [one]}, model=module, data=[volumes], example_inputs=volumes[:2], out=tmp_path / "run"
    )
    assert result.steps[0].figures["quantized_layers"] == 2
    with torch.no_grad():
        found, expected = module(volumes), original(volumes)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.15
    opened = demiglace.load(tmp_path / "run", model=Volumes)
    assert torch.equal(opened(volumes), found)


class Experts(nn.Module):
    """Data decides which expert computes; the last one gets nothing."""

    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Linear(16, 3), nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        which = self.gate(x).argmax(1)
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (which == number).nonzero().flatten()
            output = output.index_add(0, rows, expert(x[rows]))
        return self.head(output)


@pytest.mark.parametrize("one", [*POST_TRAINING, training("quantize.qat"), {"use": "quantize.rate"}])
def test_a_layer_that_gets_no_example_is_quantized_beside_those_that_do(one):
    torch.manual_seed(0)
    module = Experts()
    module.gate.weight.data *= 10  # so that rounding sends few examples elsewhere
    original = copy.deepcopy(module)
    result = run(module, one)
    assert not result.steps[0].left_alone
    assert module(VALUES[:0]).shape == (0, 3)
    assert distance(module, original) < (0.5 if one["use"] == "quantize.rate" else 0.2)


def test_layers_that_calibration_does_not_call_are_not_smoothed():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0].mean(1)

    with pytest.raises(GraphError, match=r"attention.out_proj: calibration does not call it"):
        run(Attention(), {"use": "quantize.smooth"}, values=VALUES.view(8, 8, 16))


@pytest.mark.parametrize("one", [*POST_TRAINING, {"use": "quantize.rate", "bits_per_weight": 8}])
def test_a_model_that_is_one_layer_is_quantized(one):
    torch.manual_seed(0)
    module = nn.Linear(16, 3)
    original = copy.deepcopy(module)
    run(module, one)
    assert distance(module, original) < (0.3 if one["use"] == "quantize.rate" else 0.1)


class OneByOne(nn.Module):
    """Its layers get single vectors and a single number."""

    def __init__(self):
        super().__init__()
        self.body, self.table = nn.Linear(16, 3), nn.Embedding(5, 3)

    def forward(self, x):
        return torch.stack([self.body(one) + self.table(torch.tensor(3)) for one in x])


@pytest.mark.parametrize("one", POST_TRAINING)
def test_layers_that_are_called_without_a_batch_are_quantized(one):
    torch.manual_seed(0)
    module = OneByOne()
    original = copy.deepcopy(module)
    run(module, one)
    assert distance(module, original) < 0.05


def test_inputs_given_by_name_are_rounded_in_training_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(16, 3)

        def forward(self, x):
            return self.body(input=x)

    module = Named()
    original = copy.deepcopy(module)
    run(module, training("quantize.qat"))
    assert distance(module, original) < 0.1
    assert float(module.body.input_scale) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "one", [training("quantize.qat"), training("share.kmeans", clusters=200, bias_clusters=3, start=0.0)]
)
def test_models_of_other_dtypes_train_for_integers(dtype, one, tmp_path):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)

    values = VALUES.to(dtype)
    result = run(build(), one, values=values, out=tmp_path / "run")
    assert result.model(values).dtype == dtype
    assert distance(result.model, build(), values) < 0.25
    assert torch.equal(demiglace.load(tmp_path / "run", model=build)(values), result.model(values))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("one", [*POST_TRAINING, training("quantize.qat"), {"use": "quantize.rate"}])
@pytest.mark.parametrize("kind", ["spectral", "weight", "parametrized"])
def test_a_layer_whose_weight_is_computed_is_left_alone_and_named(kind, one):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    if kind == "spectral":
        nn.utils.spectral_norm(module[0])
    elif kind == "weight":
        nn.utils.weight_norm(module[0])
    else:
        parametrize.register_parametrization(module[0], "weight", nn.Tanh())
    with torch.no_grad():
        before = module.eval()(VALUES)
    [step] = run(module, one).steps
    [(name, reason)] = step.left_alone.items()
    assert name.startswith("0")
    assert "computed from other parameters" in reason
    if "with" not in one:  # in training spectral norms find their vectors
        with torch.no_grad():
            assert float((module.eval()(VALUES) - before).norm() / before.norm()) < 0.5
    with pytest.raises(RecipeError, match="computed from other parameters"):
        run(module[:1], one)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_the_error_of_huge_and_tiny_tensors_is_that_of_usual_ones(size):
    approximation = VALUES + 0.01
    usual, found = TensorError.between(VALUES, approximation), TensorError.between(*_scaled(size))
    assert found.sqnr == pytest.approx(usual.sqnr, rel=1e-3)
    assert found.cosine == pytest.approx(usual.cosine, rel=1e-6)


def _scaled(size):
    return VALUES * size, (VALUES + 0.01) * size


@pytest.mark.parametrize(("columns", "fitting"), [(6, "2, 3, 6 do"), (1, "nothing does")])
def test_groups_that_do_not_divide_short_rows_say_what_does(columns, fitting):
    module = nn.Linear(columns, 3)
    with pytest.raises(RecipeError, match=f"rows of {columns}; {fitting}"):
        run(module, {**WEIGHTS, "group_size": 4}, values=torch.ones(4, columns))


def test_a_cast_that_leaves_the_range_of_its_dtype_is_refused_and_taken_back():
    module = nn.Sequential(nn.Linear(16, 3))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(GraphError, match="infinite or NaN"):
        run(module, {"use": "quantize.cast", "dtype": "float16"}, values=VALUES * 1e7)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    run(module, {"use": "quantize.cast", "dtype": "bfloat16"}, values=VALUES * 1e7)


def test_a_model_without_gradients_for_anything_refuses_training_with_one_message():
    module = nn.Sequential(nn.Linear(16, 3, bias=False))
    run(module, WEIGHTS)
    with pytest.raises(RecipeError) as caught:
        run(module, {"use": "train.supervised", "epochs": 1})
    assert len(caught.value.faults) == 1


def test_values_between_layers_are_rounded_once():
    edges = {"use": "quantize.edges"}
    with pytest.raises(RecipeError, match=r"needs activations\.int8, which step 'edges'"):
        demiglace.check({"name": "q", "pass": [STATIC, edges, {**edges, "id": "again"}]})


@pytest.mark.parametrize("second", ["bfloat16", "float16"])
def test_what_is_cast_already_or_cannot_be_cast_is_refused_when_it_is_planned(second):
    module = nn.Sequential(nn.Linear(16, 3))
    script = torch.jit.trace(module, VALUES)
    cast = {"use": "quantize.cast", "dtype": second}
    with pytest.raises(RecipeError, match="TorchScript"):
        run(script, cast)
    with pytest.raises(RecipeError, match=f"not {second} already"):
        run(copy.deepcopy(module).to(getattr(torch, second)), cast, values=VALUES.to(getattr(torch, second)))
    run(module, {"use": "quantize.cast"})
    with pytest.raises(RecipeError, match="cast to bfloat16 already"):
        run(module, cast)


class InPlace(nn.Module):
    """It overwrites what a gradient would need."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        hidden = self.body(x).sigmoid()
        output = self.head(hidden)
        hidden.mul_(2)
        return output + hidden[:, :3]


def test_a_model_that_cannot_be_differentiated_is_told_so():
    with pytest.raises(UsageError, match="cannot be differentiated"):
        run(InPlace(), {"use": "quantize.rate"})
    run(InPlace(), {"use": "quantize.rate", "method": "rtn"})
