"""Methods of rounding: what each gains, what none may break, and those of plugins."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import demiglace
from demiglace.data import Data
from demiglace.errors import DemiglaceError, Interrupted, PluginError, RecipeError
from demiglace.graph import ModelGraph, apply
from demiglace.passes import Context
from demiglace.plugins import hooks
from demiglace.quantization import METHODS, QTensor, Rounding, Scheme, round_weight, rounding_method
from demiglace_quantizers import _gptq, _methods
from demiglace_quantizers.static import Static, StaticConfig
from demiglace_quantizers.weight_only import WeightOnly, WeightOnlyConfig

BUILT_IN = ("rtn", "hqq", "gptq", "adaround")


def _moments(size, rows=512, groups=1):
    torch.manual_seed(1)
    inputs = torch.randn(groups, rows, size) @ torch.randn(groups, size, size)
    return inputs.transpose(1, 2) @ inputs / rows


def _output_error(weight, rounded, moments):
    error = (weight - rounded.dequantize()).flatten(1).unflatten(0, (len(moments), -1))
    return float(((error @ moments) * error).sum())


@pytest.mark.parametrize("scheme", [Scheme(3), Scheme(4, symmetric=False, group=8), Scheme(2), Scheme(8)])
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_gives_integers_of_the_scheme_and_survives_zeros(name, scheme):
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 2, 2)
    weight[2] = 0
    moments = _moments(16, groups=2)
    moments[:, 3] = moments[:, :, 3] = 0
    result = METHODS[name].round(Rounding(weight, scheme, moments))
    assert result.shape == weight.shape
    assert int(result.integers.min()) >= scheme.low
    assert int(result.integers.max()) <= scheme.high
    assert result.scale.isfinite().all()
    assert (result.dequantize()[2] == 0).all()


@pytest.mark.parametrize("name", ["gptq", "adaround"])
def test_methods_that_see_inputs_err_less_on_the_outputs(name):
    torch.manual_seed(0)
    weight, moments = torch.randn(24, 32), _moments(32)
    for scheme in (Scheme(3), Scheme(4, symmetric=False, group=8)):
        plain = _output_error(weight, round_weight(weight, scheme, clip=False), moments)
        result = METHODS[name].round(Rounding(weight, scheme, moments, clip=False))
        assert _output_error(weight, result, moments) < 0.7 * plain


def test_gptq_clips_the_ranges_of_rows_where_that_serves_their_outputs():
    torch.manual_seed(0)
    weight, moments = torch.randn(24, 64), _moments(64)
    weight[:12, ::16] *= 4
    errors = {}
    for clip in (False, True):
        result = METHODS["gptq"].round(Rounding(weight, Scheme(3), moments, clip=clip))
        error = weight - result.dequantize()
        errors[clip] = ((error @ moments[0]) * error).sum(1)
    assert (errors[True] <= errors[False] + 1e-4).all()
    assert float(errors[True].sum()) < 0.9 * float(errors[False].sum())


@pytest.mark.parametrize("clip", [False, True])
def test_gptq_rounds_parts_of_a_weight_as_it_rounds_the_whole(monkeypatch, clip):
    torch.manual_seed(0)
    task = Rounding(torch.randn(23, 32), Scheme(3, symmetric=False, group=8), _moments(32), clip=clip)
    whole = METHODS["gptq"].round(task)
    monkeypatch.setattr(_gptq, "_ROWS", 5)
    parts = METHODS["gptq"].round(task)
    assert torch.equal(parts.codes, whole.codes)
    assert torch.equal(parts.scale, whole.scale)
    assert torch.equal(parts.zero_point, whole.zero_point)


class Largest(TorchDispatchMode):
    """Keeps the bytes of the largest tensor that is made, views of another apart."""

    def __init__(self, other):
        super().__init__()
        self.place, self.bytes = other.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() != self.place:
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return made


def test_gptq_makes_no_copy_of_a_large_weight():
    weight = torch.randn(20000, 32)
    task = Rounding(weight, Scheme(4, symmetric=False, group=8), _moments(32))
    with Largest(weight) as largest:
        METHODS["gptq"].round(task)
    assert largest.bytes < 0.6 * weight.nbytes


def test_adaround_never_moves_a_weight_by_more_than_a_step():
    torch.manual_seed(0)
    weight, scheme = torch.randn(8, 16), Scheme(4)
    result = METHODS["adaround"].round(Rounding(weight, scheme, _moments(16), clip=False))
    assert float(((weight - result.dequantize()).abs() / result.scale).max()) <= 1 + 1e-4


def test_hqq_errs_less_on_the_bulk_of_weights_with_outliers():
    torch.manual_seed(0)
    weight = torch.randn(32, 64)
    weight[:, ::16] *= 8
    errors = []
    for name in ("rtn", "hqq"):
        result = METHODS[name].round(Rounding(weight, Scheme(4, symmetric=False), clip=False))
        errors.append(float((weight - result.dequantize()).abs().pow(0.7).sum()))
    assert errors[1] < 0.98 * errors[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_works_in_a_recipe(name):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    values = torch.randn(64, 16)
    with torch.no_grad():
        before = module(values)
    recipe = {"name": "q", "pass": [{"use": "quantize.weight_only", "bits": 4, "method": name}]}
    step = demiglace.run(recipe, model=module, data=[values], example_inputs=values[:2]).record.steps[0]
    with torch.no_grad():
        after = module(values)
    assert float((after - before).square().mean() / before.square().mean()) < 0.02
    assert name == "rtn" or f"by {name}" in step.words


class Text(nn.Module):
    """An embedding whose width is mostly lost behind it."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(50, 32), nn.Linear(32, 8)
        self.out.weight.data[:, 8:] *= 0.05

    def forward(self, ids):
        return self.out(self.words(ids)).mean(1)


def _text(ids, out=None, **options):
    torch.manual_seed(0)
    module = Text().eval()
    before = module(ids).detach()
    recipe = {"pass": [{"use": "quantize.weight_only", "bits": 3, "targets": ["words"], **options}]}
    result = demiglace.run(recipe, model=module, data=[ids], example_inputs=ids[:2], out=out)
    return float((module(ids).detach() - before).square().mean()), result.record.steps[0]


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_an_embedding_is_rounded_by_what_the_model_makes_of_it(method):
    ids = torch.randint(50, (64, 6), generator=torch.Generator().manual_seed(0))
    plain, _ = _text(ids)
    looking, step = _text(ids, method=method)
    assert looking < 0.6 * plain
    assert step.warnings == []
    assert _text(ids, method=method)[0] == looking


def test_an_embedding_that_no_output_follows_is_rounded_to_the_nearest_with_a_warning(monkeypatch):
    ids = torch.randint(50, (64, 6), generator=torch.Generator().manual_seed(0))
    plain, _ = _text(ids)
    forward = Text.forward
    monkeypatch.setattr(Text, "forward", lambda self, ids: forward(self, ids).detach())
    looking, step = _text(ids, method="gptq")
    assert looking == plain
    assert "rounded to the nearest: no gradient reaches" in step.warnings[0]


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_biases_take_up_the_mean_error_of_rounding_by_inputs(method):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(512, 6)).eval()
    values = torch.rand(64, 4, 8, 8) + 1
    means = module[0](values).detach().mean((0, 2, 3))
    recipe = {"pass": [{"use": "quantize.weight_only", "bits": 2, "method": method}]}
    demiglace.run(recipe, model=module, data=[values], example_inputs=values[:2])
    torch.testing.assert_close(module[0](values).detach().mean((0, 2, 3)), means, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"use": "quantize.weight_only", "bits": 3, "method": "gptq"}, {"use": "quantize.static"}]
)
def test_biases_that_a_mask_holds_at_zero_are_not_corrected(options):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    values = torch.rand(64, 16)
    keep = torch.arange(8) % 2 == 0
    model = ModelGraph(module, masks={"0.bias": keep})
    module[0].bias.data *= keep
    edits = _editor(options).edits(model, Context(0, torch.device("cpu"), data=Data.of([values])))
    apply(model, edits).commit()
    assert (module[0].bias[~keep] == 0).all()
    assert (module[0].bias[keep] != 0).all()


def _editor(options):
    name, config = {
        "quantize.static": (Static, StaticConfig),
        "quantize.weight_only": (WeightOnly, WeightOnlyConfig),
    }[options["use"]]
    return name(config(**{key: value for key, value in options.items() if key != "use"}))


def test_the_built_in_methods_come_in_by_the_hook():
    import demiglace_quantizers

    assert demiglace_quantizers.demiglace_roundings() == [_methods.__name__]
    assert hasattr(hooks, "demiglace_roundings")
    assert set(BUILT_IN) <= set(METHODS)


@pytest.fixture
def forgotten():
    """Methods that a test registers go with it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


HOOK = """
import demiglace

@demiglace.hookimpl
def demiglace_roundings():
    return ["acme_roundings"]
"""
METHOD = """
import torch
from demiglace.quantization import QTensor, Rounding, inputs_of, round_weight, rounding_method

seen = []

@rounding_method("acme", inputs=True)
def acme(task: Rounding) -> QTensor:
    seen.append(inputs_of(task).shape)
    return round_weight(torch.zeros_like(task.weight), task.scheme)
"""


def test_a_method_of_a_plugin_rounds_what_has_inputs(site, forgotten):
    site.install("acme-passes", {"acme": HOOK, "acme_roundings": METHOD})
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 4)).eval()
    values = torch.randn(8, 4, 3, 3)
    recipe = {"name": "q", "pass": [{"use": "quantize.weight_only", "method": "acme"}]}
    demiglace.run(recipe, model=module, data=[values], example_inputs=values[:2])
    import acme_roundings

    assert acme_roundings.seen == [(2, 18, 18), (1, 6, 6)]
    assert (module[0].weight == 0).all()


def test_an_unknown_method_is_a_fault_of_the_plan_with_the_nearest_name():
    recipe = {
        "name": "q",
        "model": {"use": "mlp", "widths": [4, 3, 2]},
        "pass": [{"use": "quantize.weight_only", "method": "gtpq"}],
    }
    with pytest.raises(RecipeError, match="'gtpq'") as caught:
        demiglace.plan(recipe)
    [fault] = caught.value.faults
    assert "gptq" in fault.hint


def test_two_methods_of_one_name_are_refused(forgotten):
    with pytest.raises(ValueError, match=r"_gptq has registered a rounding method 'gptq' already"):
        rounding_method("gptq")(lambda task: round_weight(task.weight, task.scheme))


def test_a_module_that_is_loaded_again_registers_its_methods_anew(forgotten):
    for scheme in (Scheme(3), Scheme(4)):
        rounding_method("again")(lambda task, scheme=scheme: round_weight(task.weight, scheme))
    weight = torch.randn(2, 4)
    assert METHODS["again"].round(Rounding(weight, Scheme(4))).scheme == Scheme(4)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (lambda task: task.weigth, "failed: AttributeError: "),
        (lambda task: task.weight.round(), "gave a Tensor, not a QTensor"),
        (lambda task: round_weight(task.weight[:1], task.scheme), r"gave \(\(1, 4\)"),
        (lambda task: round_weight(task.weight, Scheme(8)), "gave .*bits=8.* asked for .*bits=4"),
        (
            lambda task: round_weight(task.weight.mul_(0), task.scheme),
            "changed the weight that it was to round",
        ),
    ],
)
def test_what_a_method_does_wrong_is_told_of_it_by_name(method, told, forgotten):
    rounding_method("careless")(method)
    module = nn.Sequential(nn.Linear(4, 4))
    recipe = {"name": "q", "pass": [{"use": "quantize.weight_only", "bits": 4, "method": "careless"}]}
    with pytest.raises(PluginError, match=f"the rounding method 'careless' of .*test_.* {told}") as caught:
        demiglace.run(recipe, model=module)
    assert caught.value.faults[0].hint


def test_a_method_without_inputs_that_asks_for_them_is_told_why(forgotten):
    from demiglace.quantization import inputs_of

    @rounding_method("careless")
    def careless(task: Rounding) -> QTensor:
        inputs_of(task)

    module = nn.Sequential(nn.Linear(4, 4))
    recipe = {"name": "q", "pass": [{"use": "quantize.weight_only", "method": "careless"}]}
    with pytest.raises(DemiglaceError, match="inputs=True"):
        demiglace.run(recipe, model=module, example_inputs=torch.randn(2, 4))


@pytest.mark.parametrize("name", ["hqq", "adaround"])
def test_a_method_that_takes_long_can_be_stopped_within_a_weight(name):
    def stop():
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        METHODS[name].round(Rounding(torch.randn(4, 8), Scheme(3), _moments(8), check_interrupt=stop))


@pytest.mark.parametrize("name", ["hqq", "adaround"])
def test_a_run_can_be_stopped_within_a_weight(name):
    asked = []
    recipe = {"pass": [{"use": "quantize.weight_only", "method": name}]}
    given = {"data": [torch.randn(8, 4)], "check_interrupt": lambda: asked.append(1)}
    demiglace.run(recipe, model=nn.Sequential(nn.Linear(4, 4)), **given)
    assert len(asked) > 20
