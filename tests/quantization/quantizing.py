"""Small models quantized on the same values, by every quantizer."""

import torch

import demiglace

VALUES = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
WEIGHTS, GPTQ = {"use": "quantize.weight_only"}, {"use": "quantize.weight_only", "method": "gptq"}
DYNAMIC, STATIC = {"use": "quantize.dynamic"}, {"use": "quantize.static"}
POST_TRAINING = [WEIGHTS, GPTQ, DYNAMIC, STATIC]


def training(use, **options):
    fit = {"use": "train.supervised", "steps": 4, "optimizer": {"name": "SGD", "lr": 0.0001}}
    return {**fit, "with": [{"use": use, **options}]}


def run(module, *passes, values=VALUES, **given):
    halves = values.split(len(values) // 2)
    batches = [(one, torch.arange(len(one)) % 3) for one in halves]
    recipe = {"name": "q", "pass": list(passes)}
    return demiglace.run(recipe, model=module, data=batches, example_inputs=values[:2], **given)


def distance(module, original, values=VALUES):
    """How far the outputs are from the original's, as a share of their size."""
    with torch.no_grad():
        before, after = original.eval()(values).double(), module.eval()(values).double()
    return float((after - before).norm() / before.norm())
