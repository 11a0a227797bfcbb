"""The shipped recipes that end with the smallest file, trained shorter than they are shipped."""

import json
import subprocess
import sys

import pytest
import torch

import demiglace
from demiglace.artifact.inspection import inspect

pytestmark = pytest.mark.slow

# By recipe: what is shorter, the network's parameters, and the bar on how many times smaller the file is.
CASES = {
    "smallest-lenet-300-100": (("dense.epochs=12", "shrink.epochs=40"), 266_610, 380),
    "smallest-lenet-5": (("dense.epochs=4", "shrink.epochs=8"), 431_080, 450),
}
IN_A_FRESH_PROCESS = """
import sys, torch, demiglace
outputs = demiglace.load(sys.argv[1])(torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
print(outputs.detach().numpy().tobytes().hex())
"""


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory):
    """A recipe's name, its result and its file."""
    shorter, _, _ = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    # A short training loses more than a full one, which is measured and not tested.
    overrides = [*shorter, "gate.accuracy.max_drop=0.06"]
    result = demiglace.run(f"recipe:{request.param}", overrides=overrides, out=folder)
    return request.param, result, next(folder.glob("steps/*/model.dgz"))


def test_the_file_is_hundreds_of_times_smaller_and_loses_little(run):
    name, result, file = run
    _, parameters, bar = CASES[name]
    assert result.passed, [str(gate) for gate in result.gates]
    ratio = 4 * parameters / file.stat().st_size
    assert ratio >= bar
    assert result.steps[-1].figures["smaller_than_fp32"] == round(ratio, 3)
    assert inspect(file).ratios()["float32"] == ratio


def test_a_fresh_process_decodes_the_very_model_that_was_tested(run):
    _, result, file = run
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(file)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert printed == result.model(images).detach().numpy().tobytes().hex()


def test_header_and_provenance_are_small_and_sections_near_their_entropy(run):
    _, _, file = run
    found = inspect(file)
    assert found.bytes - sum(one.bytes for one in found.tensors) <= 800
    # What cutting leaves is spread so evenly that contexts have little to say of it.
    for one in found.tensors:
        assert one.bytes <= 1.01 * one.entropy * one.elements / 8 + 64, one


def test_the_file_is_evaluated_by_a_recipe_of_its_own(run, tmp_path):
    _, result, file = run
    recipe = {
        "name": "shipped",
        "model": {"use": "artifact", "path": str(file)},
        "data": {"use": "mnist5k", "validation": 0.0},
        "pass": [{"use": "evaluate.classification"}],
    }
    demiglace.run(recipe, out=tmp_path / "run")
    step = json.loads((tmp_path / "run" / "run.json").read_text())["steps"][-1]
    assert step["metrics"]["accuracy"]["value"] == result.metrics["accuracy"]
