"""Models and examples as callers bring them: made in inference mode, compiled, wrapped."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import UsageError

PASSES = [
    {"use": "train.supervised", "epochs": 1},
    {"use": "quantize.smooth"},
    {"use": "quantize.weight_only", "bits": 4, "method": "gptq"},
]


def _made():
    torch.manual_seed(0)
    tied = nn.Linear(16, 16, bias=False)
    again = nn.Linear(16, 16, bias=False)
    again.weight = tied.weight
    module = nn.Sequential(nn.LayerNorm(16), tied, nn.ReLU(), again, nn.BatchNorm1d(16), nn.Linear(16, 4))
    return module, [(torch.randn(8, 16), torch.arange(8) % 4)]


@pytest.mark.parametrize("inside", ["the model", "the data", "the run", "all of it"])
def test_what_was_made_in_inference_mode_is_trained_and_calibrated(inside):
    with torch.inference_mode(inside in {"the model", "all of it"}):
        module, _ = _made()
    with torch.inference_mode(inside in {"the data", "all of it"}):
        _, batches = _made()
    expected = demiglace.run({"pass": PASSES}, model=_made()[0], data=_made()[1])
    with torch.inference_mode(inside in {"the run", "all of it"}):
        result = demiglace.run({"pass": PASSES}, model=module, data=batches)
    assert [step.warnings for step in result.steps] == [[], [], []]
    assert result.model[1].weight_codes is not None
    with torch.no_grad():
        values = torch.randn(8, 16)
        assert torch.equal(result.model(values), expected.model(values))


def test_tensors_of_inference_mode_stay_shared():
    with torch.inference_mode():
        module, batches = _made()
    demiglace.run({"pass": [{"use": "prune.magnitude", "amount": 0.5}]}, model=module, data=batches)
    assert module[1].weight is module[3].weight
    assert not any(one.is_inference() for one in (*module.parameters(), *module.buffers()))


def _compiled_in_place(module):
    module[1].compile(backend="eager")
    return module


@pytest.mark.parametrize(
    ("wrap", "told", "hint"),
    [
        (
            lambda module: torch.compile(module, backend="eager"),
            "the model is compiled",
            "before it is compiled",
        ),
        (_compiled_in_place, "layer '1' is compiled", "before it is compiled"),
        (nn.DataParallel, "the model is wrapped in DataParallel", "hand in its `module`"),
    ],
)
def test_wrappers_that_hide_layers_are_refused_before_anything_runs(wrap, told, hint):
    module, batches = _made()
    wrapped = wrap(copy.deepcopy(module))
    for call in (demiglace.run, demiglace.plan):
        with pytest.raises(UsageError, match=told) as caught:
            call({"pass": PASSES}, model=wrapped, data=batches)
        assert hint in caught.value.faults[0].hint
