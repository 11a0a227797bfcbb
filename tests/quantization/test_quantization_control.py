"""Accuracy control: what costs too much goes back to floating point."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import GraphError, RecipeError, UsageError
from demiglace_quantizers._control import _fewest, grouped

VALUES = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))


def _made():
    """Three layers of which the middle one has rows that two bits ruin."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)
    ).eval()
    module[2].weight.data[:, 0] = 30.0
    module[0].weight.data[0] = 0
    module[0].bias.data[0] = 0
    return module


def _run(module, max_drop, **options):
    with torch.no_grad():
        labels = module(VALUES).argmax(1)
    data = {"validation": [(VALUES, labels)], "calibration": [VALUES[:64]]}
    options = {"use": "quantize.weight_only", "bits": 3, "clip": False, **options}
    recipe = {"name": "q", "pass": [{**options, "max_drop": max_drop}]}
    result = demiglace.run(recipe, model=module, data=data, example_inputs=VALUES[:2])
    with torch.no_grad():
        drop = 1 - float((module(VALUES).argmax(1) == labels).float().mean())
    return result.record.steps[0], drop


@pytest.mark.parametrize("use", ["quantize.weight_only", "quantize.dynamic", "quantize.static"])
def test_the_layer_that_ruins_the_model_goes_back_and_the_drop_holds(use):
    options = {"use": use, "bits": 3, "clip": False} if use == "quantize.weight_only" else {"use": use}
    recipe = {"name": "q", "pass": [options]}
    module = _made()
    with torch.no_grad():
        labels = module(VALUES).argmax(1)
    data = {"validation": [(VALUES, labels)], "calibration": [VALUES[:64]]}
    demiglace.run(recipe, model=module, data=data, example_inputs=VALUES[:2])
    with torch.no_grad():
        free = 1 - float((module(VALUES).argmax(1) == labels).float().mean())
    bound = free / 2
    recipe["pass"][0]["max_drop"] = bound
    module = _made()
    step = demiglace.run(recipe, model=module, data=data, example_inputs=VALUES[:2]).record.steps[0]
    with torch.no_grad():
        drop = 1 - float((module(VALUES).argmax(1) == labels).float().mean())
    assert drop <= bound < free
    assert step.figures["accuracy_drop"] == pytest.approx(drop)
    assert step.figures["returned"][0] == "2"
    assert isinstance(module[2], nn.Linear)
    assert "returned to floating point" in step.left_alone["2"]


def test_nothing_goes_back_when_the_drop_holds():
    step, drop = _run(_made(), 1.0)
    assert step.figures["returned"] == []
    assert step.figures["accuracy_drop"] == pytest.approx(drop)


def test_a_drop_that_nothing_can_keep_is_an_error_and_leaves_the_model():
    module = nn.Sequential(nn.Linear(16, 8)).eval()
    weight = module[0].weight.data.clone()
    with pytest.raises(GraphError, match="no layer can be quantized within"):
        _run(module, 0.0, bits=2)
    assert torch.equal(module[0].weight, weight)


def test_control_without_a_validation_split_is_refused_before_anything_runs():
    recipe = {"name": "q", "pass": [{"use": "quantize.weight_only", "max_drop": 0.01}]}
    with pytest.raises(RecipeError, match="validation"):
        demiglace.run(recipe, model=_made(), data={"calibration": [VALUES]}, example_inputs=VALUES[:2])


@pytest.mark.parametrize("total", [1, 2, 7, 20])
def test_the_fewest_layers_are_returned(total):
    for least in range(total + 1):
        assert _fewest(total, lambda count, least=least: count >= least) == least


def test_layers_that_share_a_weight_go_back_together():
    from demiglace.graph import ModelGraph, Swap
    from demiglace.quantization import select_layers

    module = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    module[2].weight = module[0].weight
    layers = select_layers(ModelGraph(module)).layers
    edits = [Swap(layer.name, "quantized.linear") for layer in layers]
    assert [[edit.module for edit in group.edits] for group in grouped(layers, edits)] == [["0", "2"], ["1"]]


class Giving(nn.Module):
    """A layer whose outputs have another form."""

    def __init__(self, form):
        super().__init__()
        self.layer, self.form = nn.Linear(16, 8), form

    def forward(self, x):
        return self.form(self.layer(x))


def _refuse_rounding(monkeypatch):
    """Fail the test where anything is rounded."""
    from demiglace import quantization

    def rounding(*_, **__):
        raise AssertionError("rounded before it was refused")

    monkeypatch.setattr(quantization, "round_weight", rounding)
    monkeypatch.setattr(quantization.QTensor, "of", rounding)


@pytest.mark.parametrize("use", ["quantize.weight_only", "quantize.dynamic", "quantize.static"])
@pytest.mark.parametrize(
    ("form", "told"),
    [
        (lambda y: y.unflatten(1, (2, 4)), r"the model gives \[2, 2, 4\] instead of class scores"),
        (lambda y: y[:, :1], r"the model gives \[2, 1\] instead of class scores"),
        (lambda y: y[:, 0], r"the model gives \[2\] instead of class scores"),
        (lambda y: {"embedding": y}, "the model's output is a dict without `logits`"),
    ],
    ids=["sequence", "one score", "number", "dict"],
)
def test_outputs_that_are_no_class_scores_are_refused_before_the_first_step(use, form, told, monkeypatch):
    module = Giving(form).eval()
    before = module.layer.weight.clone()
    first = {"use": "train.supervised", "steps": 2, "loss": {"name": "mse_loss"}}
    recipe = {"name": "q", "pass": [first, {"use": use, "max_drop": 0.01}]}
    _refuse_rounding(monkeypatch)
    with pytest.raises(RecipeError, match=told) as error:
        demiglace.run(recipe, model=module, data=[VALUES], example_inputs=VALUES[:2])
    assert error.value.faults[0].hint
    assert torch.equal(module.layer.weight, before)


@pytest.mark.parametrize("use", ["quantize.weight_only", "quantize.dynamic", "quantize.static"])
@pytest.mark.parametrize("labels", [VALUES[:, :8], VALUES[:, 0], torch.zeros(400, 1, dtype=torch.long)])
def test_labels_that_are_no_classes_are_refused_before_anything_is_rounded(use, labels, monkeypatch):
    recipe = {"name": "q", "pass": [{"use": use, "max_drop": 0.01}]}
    _refuse_rounding(monkeypatch)
    with pytest.raises(UsageError, match=r"the labels of the validation split are .* no class indices"):
        demiglace.run(recipe, model=Giving(torch.tanh), data=[(VALUES, labels)], example_inputs=VALUES[:2])
