"""What quantizers leave in run.json is plain JSON."""

import copy
import json

import pytest
import torch
from rich.console import Console
from torch import nn

import demiglace
from demiglace.quantization import Scheme, TensorError, round_weight
from demiglace.report import print_summary
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


def test_the_summary_names_the_worst_weights_first_and_what_is_dead(capsys, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    module[3].weight.data[2] = 0
    result = demiglace.run({"pass": [{"use": "quantize.weight_only", "bits": 3}]}, model=module)
    print_summary(result, Console(width=80))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("weight_only:")]
    assert told[0] == "weight_only: 5 layers quantized, 1 dead channel, the worst of them:"
    worst = result.steps[0].figures["quantized"][:3]
    assert [line.split()[1] for line in told[1:]] == [f"{one['weight']}:" for one in worst]
    assert sorted(worst, key=lambda one: one["sqnr"]) == worst
    assert all(f"SQNR {one['sqnr']:.1f} dB" in line for one, line in zip(worst, told[1:], strict=True))


@pytest.mark.parametrize("use", ["quantize.static", "quantize.weight_only"])
def test_layers_that_went_back_to_floating_point_are_in_no_figure(use):
    torch.manual_seed(0)
    tied, again = nn.Linear(16, 16), nn.Linear(16, 16)
    again.weight = tied.weight
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), tied, again, nn.ReLU(), nn.Linear(16, 50)).eval()

    def step(max_drop):
        recipe = {"pass": [{"use": use, "bits": 4, "max_drop": max_drop}]}
        return demiglace.run(recipe, model=copy.deepcopy(module), data=data).steps[0]

    data = [torch.randn(500, 8)]
    found = step(0.9 * step(1.0).figures["accuracy_drop"])
    figures, returned = found.figures, set(found.figures["returned"])
    kept = {row["weight"].removesuffix(".weight") for row in figures["quantized"]}
    assert returned
    assert not kept & returned
    assert len(kept & {"2", "3"}) != 1, "layers of one weight go back together"
    assert figures["quantized_layers"] == len(kept)
    assert found.notes[0].startswith(f"{len(kept)} layer")
    assert set(figures.get("integer_layers", kept)) == kept
