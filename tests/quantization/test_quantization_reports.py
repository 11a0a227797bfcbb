"""What quantizers leave in run.json is plain JSON."""

import copy
import json

import torch
from torch import nn

import demiglace
from demiglace.quantization import Scheme, TensorError, round_weight
from demiglace_quantizers import _layers


def test_the_record_of_a_quantizer_is_json_with_every_layer_and_its_error(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()
    values = torch.randn(16, 3, 8, 8)
    recipe = {"name": "q", "pass": [{"use": "quantize.static", "max_drop": 1.0}]}
    demiglace.run(recipe, model=module, data=[values], example_inputs=values, out=tmp_path / "run")
    step = json.loads((tmp_path / "run" / "run.json").read_text())["steps"][0]
    assert {row["weight"] for row in step["figures"]["quantized"]} == {"0.weight", "4.weight"}
    assert step["figures"]["folded"] == ["0"]
    assert all(row["sqnr"] > 30 for row in step["figures"]["quantized"])
    assert "8-bit weights" in step["words"]


def test_the_error_of_a_weight_is_the_same_found_in_parts(monkeypatch):
    torch.manual_seed(0)
    weight = torch.randn(13, 4, 2, 2)
    weight[5] = 0
    rounded = round_weight(weight, Scheme(4, symmetric=False, group=8))
    whole = _layers.weight_figures(weight, rounded)
    error = TensorError.between(weight, rounded.dequantize())
    monkeypatch.setattr(_layers, "_ELEMENTS", 40)
    assert _layers.weight_figures(weight, rounded) == whole
    assert (whole["sqnr"], whole["cosine"]) == (round(error.sqnr, 2), round(error.cosine, 6))
    assert whole["dead_channels"] == 1
    assert 1 / 8 <= whole["at_ends"] < 0.5


def test_outputs_that_rounding_makes_zero_count_as_dead():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 4))
    module[0].weight.data[1] *= 1e-4
    module[0].weight.data[2] = 0
    for granularity, dead in (("channel", 1), ("tensor", 2)):
        recipe = {"pass": [{"use": "quantize.dynamic", "granularity": granularity}]}
        step = demiglace.run(recipe, model=copy.deepcopy(module)).steps[0]
        assert step.figures["quantized"][0]["dead_channels"] == dead
