"""`evaluate.memory`: what fresh processes say of the model and of its fp32."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import RecipeError, UsageError

pytestmark = pytest.mark.slow


class Own(nn.Module):
    """A caller's own class, which another process does not know."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2000, 5000)

    def forward(self, inputs):
        return self.layer(inputs)


class Branching(Own):
    """It cannot be traced."""

    def forward(self, inputs):
        return self.layer(inputs) if float(inputs.sum()) > 0 else inputs


def run(*passes, model, **options):
    recipe = {"pass": [*passes, {"use": "evaluate.memory", **options}]}
    return demiglace.run(recipe, model=model, example_inputs=torch.rand(2, 2000))


def test_the_weights_of_a_callers_own_network_show_and_smaller_ones_take_less():
    result = run(
        {"use": "prune.channels", "amount": 0.5},
        model=nn.Sequential(Own(), nn.Linear(5000, 200)),
    )
    step = result.steps[-1]
    [row] = step.figures["memory"]
    peaks = {form: row[form]["peak"] - row[form]["before"] for form in ("model", "fp32")}
    # 44 MB of weights in fp32, half of them in the model; what else a call takes is a few megabytes.
    assert 40e6 < peaks["fp32"] < 90e6
    assert peaks["model"] < 0.75 * peaks["fp32"]
    assert step.metrics["memory_eager_b1"].value == peaks["model"]
    assert step.metrics["memory_ratio_eager_b1"].value == pytest.approx(peaks["model"] / peaks["fp32"])
    assert "MB at the peak" in step.notes[0]


def test_activations_of_a_larger_batch_show():
    step = run(model=Own(), batch_sizes=[1, 1000]).steps[-1]
    one, many = (step.metrics[f"memory_eager_b{batch}"].value for batch in (1, 1000))
    assert many - one > 10e6  # a thousand outputs of 20 kB


def test_what_no_other_process_can_build_is_told():
    with pytest.raises(UsageError, match=r'name what makes it: \[model\] use = "python"'):
        run(model=Branching())


def test_compiled_code_is_refused():
    with pytest.raises(RecipeError, match="the peak of compiled code is its compiler's"):
        run(model=Own(), runtimes=["inductor"])


def test_a_runtime_of_files_is_measured_in_its_own_process(acme):
    step = run({"use": "quantize.weight_only"}, model=Own(), runtimes=["acme"]).steps[-1]
    assert step.metrics["memory_acme_b1"].value > 10e6
