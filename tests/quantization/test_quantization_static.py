"""Static quantization through the engine: folding, calibration, bias correction, saving."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace.calibration import calibrate
from demiglace.data import Batch
from demiglace.errors import DemiglaceError, RecipeError
from demiglace.graph import Example, ModelGraph
from demiglace.passes import Context
from demiglace.quantization import OBSERVERS, Scheme, fit, fold, foldable, to_integers, to_real


class Residual(nn.Module):
    """Two batch norms that can be folded, and one whose layer is also read by an addition."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.c2, self.b2 = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16)
        self.c3, self.b3 = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.b1(self.c1(x)).relu()
        x = (x + self.b2(self.c2(x))).relu()
        y = self.c3(x)
        return self.head((self.b3(y) + y).mean((2, 3)))


def _made():
    torch.manual_seed(0)
    module = Residual()
    with torch.no_grad():
        for _ in range(20):
            module(torch.randn(32, 3, 8, 8) * 2 + 1)
    module.b1.weight.data.uniform_(0.5, 2)
    module.b1.bias.data.normal_()
    module.c1.weight.data[2] = 0
    module.b1.weight.data[3] = 0
    return module.eval()


VALUES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 + 1


def _quantize(module, out=None, data=None, **options):
    recipe = {"name": "q", "pass": [{"use": "quantize.static", **options}]}
    data = list(VALUES.split(32)) if data is None else data
    example = VALUES[:2].to(next(module.parameters()).dtype)
    return demiglace.run(recipe, model=module, data=data, example_inputs=example, out=out)


def _sqnr(module, **options):
    with torch.no_grad():
        before = module(VALUES)
        after = _quantize(copy.deepcopy(module), **options).model(VALUES)
    return float(10 * torch.log10(before.square().sum() / (before - after).square().sum()))


def test_a_static_model_computes_on_integers_close_to_the_original_and_opens_the_same(tmp_path):
    module = _made()
    with torch.no_grad():
        before = module(VALUES)
        result = _quantize(module, tmp_path / "run")
        after = result.model(VALUES)
        assert torch.equal(demiglace.load(tmp_path / "run", model=Residual).eval()(VALUES), after)
    assert float((before - after).square().mean() / before.square().mean()) < 1e-3
    figures = result.record.steps[0].figures
    assert figures["integer_layers"] == ["c1", "c2", "c3", "head"]
    assert set(figures["folded"]) == {"c1", "c2"}
    assert all(row["sqnr"] > 30 for row in figures["quantized"])
    assert isinstance(module.b1, nn.Identity)
    assert isinstance(module.b3, nn.BatchNorm2d)


def test_only_norms_whose_layer_nobody_else_reads_are_folded_and_folding_changes_nothing():
    module = _made().double()
    model = ModelGraph(module, Example((VALUES[:2].double(),)))
    assert foldable(model) == {"c1": "b1", "c2": "b2"}
    folded = fold(module.c2, module.b2, "b2")
    values = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    joined = nn.functional.conv2d(values, folded.weight, folded.bias, padding=1, groups=4)
    torch.testing.assert_close(joined, module.b2(module.c2(values)))


@pytest.mark.parametrize(
    ("dtype", "norms"),
    [
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_a_bias_that_a_norm_brings_has_the_dtype_of_its_layer(dtype, norms, tmp_path):
    module, values = _made().to(dtype), VALUES.to(dtype)
    for norm in (module.b1, module.b2, module.b3):
        norm.to(norms)
    with torch.no_grad():
        before = module(values).double()
        result = _quantize(module, tmp_path / "run", list(values.split(32)))
        after, opened = result.model(values), demiglace.load(tmp_path / "run")(values)
    assert after.dtype == result.model.c1.bias.dtype == dtype
    assert float((after.double() - before).norm()) < 0.02 * float(before.norm())
    assert torch.equal(after, opened)


def test_a_static_layer_is_the_layer_of_the_dequantized_operands():
    torch.manual_seed(0)
    for layer, values in (
        (nn.Linear(12, 5), torch.randn(7, 12) + 1),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(3, 4, 6, 6) + 1),
        (nn.Conv1d(4, 6, 3, stride=2), torch.randn(3, 4, 9) - 1),
    ):
        module = nn.Sequential(layer)
        recipe = {"name": "q", "pass": [{"use": "quantize.static"}]}
        demiglace.run(recipe, model=module, data=[values], example_inputs=values)
        scale, zero = module[0].input_scale, module[0].input_zero_point
        scheme = Scheme(8, symmetric=False)
        rounded = to_real(to_integers(values, scale, zero, scheme), scale, zero)
        weight = module[0].weight
        with torch.no_grad():
            if isinstance(layer, nn.Linear):
                expected = nn.functional.linear(rounded, weight, module[0].bias)
            else:
                expected = layer._conv_forward(rounded, weight, module[0].bias)
            torch.testing.assert_close(module(values), expected, rtol=1e-4, atol=1e-5)


def test_bias_correction_pays_most_where_weights_have_few_bits():
    module = _made()
    for bits, gain in ((8, 0.0), (4, 3.0)):
        corrected, plain = (_sqnr(module, bits=bits, bias_correction=on) for on in (True, False))
        assert corrected > plain + gain


def test_batch_norms_stay_when_the_model_cannot_be_traced_and_the_run_says_so():
    class Branching(Residual):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > -1e9 else x

    torch.manual_seed(0)
    module = Branching().eval()
    step = _quantize(module).record.steps[0]
    assert any("not folded" in text for text in step.warnings)
    assert isinstance(module.b1, nn.BatchNorm2d)
    assert step.figures["integer_layers"] == ["c1", "c2", "c3", "head"]


@pytest.mark.parametrize("name", list(OBSERVERS))
@pytest.mark.parametrize("values", ["plain", "constant", "zero", "outlier"])
def test_observers_give_finite_ranges_that_hold_most_values(name, values):
    data = {
        "plain": torch.randn(20_000),
        "constant": torch.full((100,), 3.0),
        "zero": torch.zeros(100),
        "outlier": torch.cat([torch.rand(200_000), torch.tensor([1000.0])]),
    }[values]
    observer = OBSERVERS[name]()
    context = Context(seed=0, device=torch.device("cpu"))
    calibrate(ModelGraph(nn.Identity()), [Batch((data,))], {".": observer}, context)
    scheme = Scheme(8, symmetric=False)
    low, high = observer.range(scheme)
    scale, zero = fit(torch.tensor(low), torch.tensor(high), scheme)
    back = to_real(to_integers(data, scale, zero, scheme), scale, zero)
    assert back.isfinite().all()
    usual = data[data < 10]
    tolerance = 4.0 if (name, values) in {("minmax", "outlier"), ("mse", "outlier")} else 0.3
    assert float((back[data < 10] - usual).abs().max()) <= tolerance
    if (name, values) == ("percentile", "outlier"):
        assert high < 10


def test_static_quantization_without_data_is_refused_before_anything_runs():
    with pytest.raises(RecipeError, match="calibration"):
        demiglace.run(
            {"name": "q", "pass": [{"use": "quantize.static"}]}, model=_made(), example_inputs=VALUES[:2]
        )
    with pytest.raises(DemiglaceError, match="empty"):
        _quantize(_made(), data=[])
