"""Steps and integers chosen for the bytes of the packed file."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact.inspection import inspect
from demiglace.errors import RecipeError
from demiglace.quantization import METHODS, RoundingMethod
from demiglace.testing import EditorConformance
from demiglace_quantizers import _methods, rate  # noqa: F401  # registers the methods
from demiglace_quantizers._lagrangian import RATE, cheapest, rounded, table_of

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


class TestWithoutData(EditorConformance):
    spec = rate.SPEC
    config = rate.RateConfig(method="rtn", bits_per_weight=5.0)


class TestWithData(EditorConformance):
    spec = rate.SPEC
    config = rate.RateConfig(bits_per_weight=5.0)


class Words(nn.Module):
    """An embedding of which few words are in use, a tied head, and layers between them."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(400, 32)
        self.up, self.down, self.norm = nn.Linear(32, 96), nn.Linear(96, 32), nn.LayerNorm(32)
        self.head = nn.Linear(32, 400)
        self.head.weight = self.words.weight

    def forward(self, ids):
        x = self.words(ids)
        return self.head(self.norm(x + self.down(self.up(x).relu())))


def _network(width=128):
    """Weights spread like those of trained networks, not evenly as fresh ones."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)
    )
    for layer in module[::2]:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return module


def _inputs(count, seed=1):
    mixed = torch.randn(64, 64, generator=torch.Generator().manual_seed(2)) / 8
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed)) @ mixed


def _rated(module, folder, *before, data=None, **options):
    data = _inputs(256) if data is None else data
    passes = [*before, {"use": "quantize.rate", **options}, {"use": "export.packed"}]
    recipe = {"name": "q", "pass": passes}
    result = demiglace.run(
        recipe, model=module.eval(), data=list(data.split(32)), example_inputs=data[:2], out=folder / "run"
    )
    [file] = (folder / "run").rglob("*.dgz")
    return result, file


def _error(module, original, values):
    with torch.no_grad():
        return float((module(values) - original(values)).square().mean())


@pytest.mark.parametrize("bits", [1.5, 3.0, 4.5, 6.0])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_the_weights_take_the_bits_that_were_asked_for_in_the_real_file(method, bits, tmp_path):
    result, file = _rated(_network(), tmp_path, method=method, bits_per_weight=bits)
    sections = [one for one in inspect(file).tensors if one.name.endswith(("_codes", "_scale"))]
    taken, weights = sum(one.bytes for one in sections), 64 * 128 + 128 * 128 + 128 * 8
    assert 8 * taken / weights == pytest.approx(bits, rel=0.02)
    assert result.steps[0].figures["coded_bytes"] == taken
    assert result.steps[0].figures["bits_per_weight"] == pytest.approx(8 * taken / weights, abs=1e-3)


def test_bytes_say_the_same_as_bits_a_weight(tmp_path):
    count = 64 * 128 + 128 * 128 + 128 * 8
    result, _ = _rated(_network(), tmp_path, method="rtn", bytes=count // 2)
    assert result.steps[0].figures["bits_per_weight"] == pytest.approx(4.0, rel=0.02)


def test_what_integers_cannot_take_is_not_taken(tmp_path):
    result, _ = _rated(_network(), tmp_path, method="rtn", bytes=10**6)
    assert 5 < result.steps[0].figures["bits_per_weight"] < 8


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_files_of_one_size_err_less_than_with_fixed_bits(method, tmp_path, monkeypatch):
    # Both by columns only and with the same damping, so that nothing but the bits differs.
    like = RoundingMethod(method, METHODS[method].round, inputs=METHODS[method].inputs)
    monkeypatch.setitem(METHODS, method, like)
    original = _network().eval()
    fixed = {"use": "quantize.weight_only", "bits": 4, "group_size": 32, "method": method, "damping": 0.01}
    passes = [fixed, {"use": "export.packed"}]
    module, data = _network().eval(), _inputs(256)
    demiglace.run(
        {"name": "q", "pass": passes},
        model=module,
        data=[data],
        example_inputs=data[:2],
        out=tmp_path / "fixed",
    )
    [file] = (tmp_path / "fixed").rglob("*.dgz")
    size = sum(one.bytes for one in inspect(file).tensors if "weight" in one.name)
    rated, _ = _rated(_network(), tmp_path, method=method, bytes=size)
    assert rated.steps[0].figures["coded_bytes"] <= 1.01 * size
    held_out = _inputs(512, seed=3)
    assert _error(rated.model, original, held_out) < 0.7 * _error(module, original, held_out)


def test_calibration_pays_at_one_size(tmp_path):
    original, held_out, errors = _network().eval(), _inputs(512, seed=3), {}
    for method in ("rtn", "gptq"):
        (tmp_path / method).mkdir()
        result, _ = _rated(_network(), tmp_path / method, method=method, bits_per_weight=3.0)
        errors[method] = _error(result.model, original, held_out)
    assert errors["gptq"] < 0.5 * errors["rtn"]


def test_words_that_come_get_finer_steps_and_the_others_are_kept(tmp_path):
    torch.manual_seed(0)
    data = torch.randint(0, 40, (64, 10))
    data[0] = torch.arange(40, 50)
    result, _ = _rated(
        Words(), tmp_path, data=data, bits_per_weight=4.0, targets=["words", "head", "up", "down"]
    )
    words = result.model.words.quantized("weight")
    steps = words.scale.flatten()
    assert steps[:40].mean() < 0.7 * steps[50:].mean()
    assert (words.integers[50:] != 0).float().mean() > 0.3
    assert result.model.head.weight_codes.data_ptr() == result.model.words.weight_codes.data_ptr()


def test_rows_whose_gradients_vanish_by_saturation_are_kept(tmp_path):
    module = _network()
    module[1] = nn.Hardtanh()
    with torch.no_grad():
        module[0].bias[:32] = 50.0
    before = module[0].weight.detach().clone()
    result, _ = _rated(module, tmp_path, bits_per_weight=3.0)
    error = (result.model[0].weight - before).square().sum(1) / before.square().sum(1)
    assert error[32:].mean() < error[:32].mean() < 0.5


def test_without_data_a_row_of_small_weights_has_a_smaller_step(tmp_path):
    module = _network()
    with torch.no_grad():
        module[2].weight[:64] /= 16
    result, _ = _rated(module, tmp_path, method="rtn")
    steps = result.model[2].quantized("weight").scale.flatten()
    assert 2 < steps[64:].mean() / steps[:64].mean() < 8


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_zeros_of_a_pruned_model_stay_zeros(method, tmp_path):
    prune = {"use": "prune.magnitude", "amount": 0.8}
    result, _ = _rated(_network(), tmp_path, prune, method=method, bits_per_weight=1.5)
    pruned, quantized = (one.after for one in result.record.steps[:2])
    assert quantized.zeros >= pruned.zeros > 0
    assert result.graph.masks == {}


def test_a_layer_that_the_outputs_do_not_depend_on_gets_bits_too(tmp_path):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, values):
            return self.used(values)

    torch.manual_seed(0)
    result, file = _rated(Aside(), tmp_path, bits_per_weight=4.0)
    size = {one.name: one.bytes for one in inspect(file).tensors}
    assert size["unused.weight_codes"] == pytest.approx(size["used.weight_codes"], rel=0.35)
    assert result.steps[0].left_alone == {}


def test_the_file_opens_without_the_class_and_computes_the_same(tmp_path):
    result, file = _rated(_network(), tmp_path, bits_per_weight=3.0)
    values = _inputs(5)
    with torch.no_grad():
        torch.testing.assert_close(demiglace.load(file)(values), result.model(values), rtol=0, atol=0)


def test_gptq_needs_data_and_a_size_is_given_once(tmp_path):
    with pytest.raises(RecipeError, match="calibration"):
        demiglace.run(
            {"name": "q", "pass": [{"use": "quantize.rate"}]}, model=_network(), example_inputs=_inputs(2)
        )
    with pytest.raises(RecipeError, match="not both"):
        demiglace.check({"name": "q", "pass": [{"use": "quantize.rate", "bytes": 9, "bits_per_weight": 2.0}]})


def test_fewer_bytes_than_a_file_could_have_are_refused():
    one = {"use": "quantize.rate", "method": "rtn", "bytes": 100}
    with pytest.raises(RecipeError, match=r"(?s)100 bytes for 25,600 weights .* at least 320"):
        demiglace.run({"name": "q", "pass": [one]}, model=_network(), example_inputs=_inputs(2))


def test_an_integer_moves_towards_zero_where_that_saves_more_bits_than_it_costs():
    integers = torch.tensor([0] * 900 + [1] * 90 + [5])
    table = table_of(integers)
    values = torch.tensor([0.52, 0.9, -0.55, 4.6])
    chosen = cheapest(values, torch.ones(()), table)
    assert chosen.tolist() == [0, 1, 0, 5]
    costs = ((values[0] - 1) ** 2 + RATE * table[128], values[0] ** 2 + RATE * table[127])
    assert costs[1] < costs[0]
    assert cheapest(values, torch.tensor(100.0), table).tolist() == [1, 1, -1, 5]
    assert cheapest(values, torch.ones(()), None).tolist() == [1, 1, -1, 5]


def test_choosing_for_bits_errs_less_at_one_entropy():
    from demiglace_quantizers._lagrangian import counts_of, entropy

    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))

    def cost(step, table=True):
        steps = torch.full_like(values, step)
        integers = rounded(values, steps, torch.ones_like(values))[0] if table else (values / step).round()
        return float((values - integers * step).square().mean()), entropy(counts_of(integers)) / len(values)

    plain_error, plain_bits = cost(0.8, table=False)
    step = next(one / 1000 for one in range(800, 400, -2) if cost(one / 1000)[1] >= plain_bits)
    assert cost(step)[0] < 0.985 * plain_error
