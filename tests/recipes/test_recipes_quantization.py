"""The shipped recipes that quantize, run on real digits."""

import pytest
import torch

import demiglace
from demiglace.quantization import QTensor

pytestmark = pytest.mark.slow

LENGTH = {
    "lenet-ternary": ("dense.epochs=10", "ternary.epochs=12", "gate.accuracy.max_drop=0.03"),
}
"""Recipes that are run shorter than they are shipped."""
TRAINED = {"lenet-static-int8"}
"""Recipes that are run from a trained network."""
LAYERS = {
    "mlp-dynamic-int8": {"DynamicLinear": 8},
    "lenet-static-int8": {"StaticConv2d": 8, "StaticLinear": 8},
    "lenet-ternary": {"StaticLinear": 2},
    "int4-gptq": {"QuantizedLinear": 4},
}
"""The classes of layers that a recipe ends with, and the bits of their weights."""


@pytest.mark.parametrize("name", LAYERS)
def test_a_recipe_ends_with_integers_keeps_its_gates_and_opens_again(name, from_trained, tmp_path):
    overrides = from_trained if name in TRAINED else LENGTH.get(name, ())
    result = demiglace.run(f"recipe:{name}", overrides=overrides, out=tmp_path / "run")
    assert result.passed, [str(gate) for gate in result.gates]
    layers = [one for one in result.model.modules() if hasattr(one, "quantized_weights")]
    found = {type(one).__name__: one.quantized("weight").scheme.bits for one in layers}
    assert found == LAYERS[name]
    assert all(isinstance(weight, QTensor) for one in layers for _, weight in one.quantized_weights())
    inputs = torch.rand(3, 1, 28, 28)
    assert torch.equal(demiglace.load(tmp_path / "run")(inputs), result.model(inputs))


def test_bfloat16_is_half_and_takes_and_gives_float32(from_trained):
    result = demiglace.run("recipe:lenet-bf16", overrides=from_trained)
    assert result.passed
    assert {one.dtype for one in result.model.parameters()} == {torch.bfloat16}
    assert result.model(torch.rand(2, 1, 28, 28)).dtype == torch.float32


def test_control_keeps_the_drop_on_the_validation_split_and_names_what_went_back():
    # From fresh weights: with those of `from_trained` nothing goes back.
    result = demiglace.run("recipe:static-controlled", overrides=["dense.epochs=6"])
    assert result.passed
    figures = result.steps[1].figures
    assert figures["accuracy_drop"] <= 0.005
    assert set(figures["returned"]) == set(result.steps[1].left_alone)
    for name in figures["returned"]:
        assert result.model.get_submodule(name).weight.dtype == torch.float32


def test_digits_rate_writes_a_file_of_its_bits_that_computes_the_same(tmp_path):
    result = demiglace.run("recipe:digits-rate", out=tmp_path / "run")
    assert result.passed, [str(gate) for gate in result.gates]
    [file] = (tmp_path / "run").rglob("*.dgz")
    weights = 784 * 256 + 256 * 128 + 128 * 10
    assert file.stat().st_size <= 1.02 * 1.5 * weights / 8 + 4 * (256 + 128 + 10) + 1500
    inputs = torch.rand(3, 1, 28, 28)
    assert torch.equal(demiglace.load(file)(inputs), result.model(inputs))
