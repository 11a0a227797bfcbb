"""Models whose forward takes a dict or a list, or returns a container that torch does not know."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import demiglace


@dataclass
class Found:
    logits: torch.Tensor
    hidden: tuple
    loss: object = None


class Attributes(dict):
    __getattr__ = dict.get


MADE = {
    "dataclass": Found,
    "mapping": lambda logits, hidden: Attributes(logits=logits, hidden=hidden, loss=None),
    "namespace": lambda logits, hidden: SimpleNamespace(logits=logits, hidden=hidden),
}
TAKEN = {
    "words": lambda words, mask: words,
    "dict": lambda words, mask: {"words": words, "mask": mask},
    "list": lambda words, mask: [words, mask],
}
PASSES = {
    "gptq": {"use": "quantize.weight_only", "bits": 4, "method": "gptq"},
    "budget": {"use": "quantize.weight_only", "budget": 8},
    "rate": {"use": "quantize.rate", "bits_per_weight": 6},
    "dynamic": {"use": "quantize.dynamic"},
    "static": {"use": "quantize.static"},
    "smooth": {"use": "quantize.smooth"},
    "cast": {"use": "quantize.cast"},
}


class Encoder(nn.Module):
    def __init__(self, returns, takes):
        super().__init__()
        self.returns, self.takes = returns, takes
        self.words, self.norm = nn.Embedding(30, 16), nn.LayerNorm(16)
        self.body, self.bn, self.head = nn.Linear(16, 24), nn.BatchNorm1d(24), nn.Linear(24, 5)

    def forward(self, inputs):
        words, mask = {
            "words": lambda: (inputs, None),
            "dict": lambda: (inputs["words"], inputs["mask"]),
            "list": lambda: inputs,
        }[self.takes]()
        hidden = self.norm(self.words(words))
        pooled = hidden.mean(1) if mask is None else (hidden * mask[..., None]).mean(1)
        return MADE[self.returns](self.head(self.bn(self.body(pooled)).relu()), (hidden,))


def _run(returns, takes, *passes, out=None):
    torch.manual_seed(0)
    module = Encoder(returns, takes).eval()
    batches = [
        (TAKEN[takes](torch.randint(0, 30, (n, 6)), torch.ones(n, 6)), torch.arange(n)) for n in (8, 3)
    ]
    inputs = batches[0][0]
    with torch.no_grad():
        before = module(inputs).logits
        result = demiglace.run({"name": "q", "pass": list(passes)}, model=module, data=batches, out=out)
        return result, inputs, before, result.model(inputs)


@pytest.mark.parametrize("returns", MADE)
@pytest.mark.parametrize("use", PASSES)
def test_what_a_model_returns_is_seen_and_keeps_its_form(returns, use, tmp_path):
    result, inputs, before, after = _run(returns, "words", PASSES[use], out=tmp_path / "run")
    assert type(after) is type(MADE[returns](None, None))
    assert after.logits.dtype == after.hidden[0].dtype == torch.float32
    assert float((after.logits - before).norm()) < 0.2 * float(before.norm())
    assert result.steps[0].warnings == []
    opened = demiglace.load(tmp_path / "run")(inputs)
    assert torch.allclose(opened["logits"], after.logits, atol=1e-2 if use == "cast" else 1e-6)


@pytest.mark.parametrize("takes", ["dict", "list"])
@pytest.mark.parametrize("use", PASSES)
def test_examples_in_a_container_calibrate(takes, use):
    result, _, before, after = _run("dataclass", takes, PASSES[use])
    assert float((after.logits - before).norm()) < 0.2 * float(before.norm())
    assert result.steps[0].warnings == []


@pytest.mark.parametrize("takes", ["dict", "list"])
def test_a_file_takes_one_by_one_what_the_model_takes_in_a_container(takes, tmp_path):
    pytest.importorskip("onnxruntime")
    passes = {"use": "quantize.static"}, {"use": "export.onnx"}
    result, *_ = _run("mapping", takes, *passes, out=tmp_path / "run")
    assert result.steps[1].figures["difference"] < 0.1
