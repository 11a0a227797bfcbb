"""Every shipped recipe is run on real digits; `mnist` on files in MNIST's own format, written here."""

import json
import struct

import pytest
import torch

import demiglace
from demiglace.plugins import discover
from demiglace.recipe import load_recipe

pytestmark = pytest.mark.slow

SHIPPED = discover().recipes
TESTED_APART = {
    *("digits", "digits-random", "digits-quantile", "digits-structured", "mnist"),
    *("smallest-lenet-300-100", "smallest-lenet-5"),
    *("cnn-int8-onnx", "cnn-int8-openvino", "qat-onnx", "resnet18-channels-int8"),
    *("lenet-neurons", "resnet18-blocks", "resnet18-channels", "vit-heads"),
    *(
        "gradual-95",
        "gradual-98",
        "gradual-teacher",
        "digits-teacher",
        "gradual-channels",
        "teacher-student",
        "augmented-teacher",
        "distill-textbook",
    ),
    *(
        "mlp-dynamic-int8",
        "lenet-static-int8",
        "lenet-ternary",
        "int4-gptq",
        "digits-rate",
        "lenet-bf16",
        "static-controlled",
    ),
}
"""Recipes of which this file, or one beside it, knows more than that they run."""
GIVEN = {
    "mnist": ["data.root=mnist", "data.download=false"],
    "sparse-feed-forward": ["sparse.min_speedup=0.0", "latency.seconds=0.1"],
    "sparse-int8": ["latency.seconds=0.1"],
}
"""What a recipe is told that would download, decide by the clock, or measure for seconds."""


def run(name, folder, **given):
    return demiglace.run(f"recipe:{name}", out=folder / name, overrides=GIVEN.get(name), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def digits(folder):
    """One run of the digits recipe for all tests of it."""
    return run("digits", folder)


def layers(model):
    return {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}


def test_digits_keeps_its_accuracy_at_the_asked_sparsity(digits):
    assert digits.passed
    assert digits.metrics["accuracy"] >= 0.90
    assert digits.metrics["sparsity_pruned_layers"] == pytest.approx(0.300, abs=0.0005)


def test_the_digits_pruned_weights_are_exactly_zero_after_fine_tuning(digits):
    assert [step.id for step in digits.steps] == ["dense", "prune", "fine-tune", "sparsity"]
    weights = layers(digits.model)
    assert set(digits.graph.masks) == set(weights)
    pruned = [weights[name][~keep] for name, keep in digits.graph.masks.items()]
    assert sum(map(torch.Tensor.numel, pruned)) == round(0.3 * 234_752)
    assert all(torch.count_nonzero(held) == 0 for held in pruned)
    # They lie where the pruning put them, and the training went on around them.
    assert digits.steps[2].before.zeros == digits.steps[2].after.zeros == round(0.3 * 234_752)
    assert digits.steps[2].input != digits.steps[2].output


def test_the_digits_run_is_on_disk_whole_and_opens_to_the_same_model(digits):
    inputs = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert demiglace.load(digits.path)(inputs).equal(digits.model(inputs))
    record = json.loads((digits.path / "run.json").read_text())
    assert record["status"] == "done"
    assert record["steps"][-1]["metrics"]["accuracy"]["value"] == digits.metrics["accuracy"]


def test_random_takes_a_fifth_of_one_layer(folder):
    result = run("digits-random", folder)
    weights = layers(result.model)
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert zeros == {"fc1.weight": round(0.2 * 784 * 256), "fc2.weight": 0, "fc3.weight": 0}
    assert result.steps[0].metrics["accuracy"].value >= 0.85
    assert list(result.graph.masks) == ["fc1.weight"]


def test_quantile_takes_three_tenths_of_each_layer(folder):
    result = run("digits-quantile", folder)
    assert result.passed
    shares = {name: float((weight == 0).float().mean()) for name, weight in layers(result.model).items()}
    assert shares == pytest.approx(dict.fromkeys(shares, 0.3), abs=0.001)
    assert len(shares) == 3


def test_structured_zeroes_half_of_the_channels_for_good(folder):
    result = run("digits-structured", folder)
    assert result.passed
    weight, bias = result.model.conv2.weight, result.model.conv2.bias
    empty = weight.flatten(1).abs().sum(dim=1) == 0
    assert int(empty.sum()) == weight.shape[0] // 2
    assert torch.equal(bias[empty], torch.zeros(weight.shape[0] // 2))
    assert not result.graph.masks


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A few real digits in MNIST's original files: big-endian headers, where torchvision looks."""
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, (images, labels) in zip(("train", "t10k"), some_digits(), strict=True):
        header = struct.pack(">iiii", 2051, len(images), 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">ii", 2049, len(labels))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())
    monkeypatch.chdir(tmp_path)


def some_digits():
    """Images `[n, 28, 28]` and labels, 2,000 to train and 500 to test."""
    registry = discover()
    spec = registry.data_sources["mnist5k"]
    splits = registry.implementation(spec)(spec.config()).splits()
    for name, count in (("train", 2000), ("test", 500)):
        split = splits[name]
        chosen = torch.randperm(split.examples(), generator=torch.Generator().manual_seed(0))[:count]
        yield (split.inputs[chosen].reshape(-1, 28, 28) * 255).round().to(torch.uint8), split.labels[chosen]


def test_mnist_runs_offline_on_files_in_their_original_format(mnist, tmp_path):
    result = run("mnist", tmp_path / "runs")
    assert result.record.data["splits"] == {
        "train": 1800,
        "validation": 200,
        "test": 500,
        "calibration": 1800,
    }
    assert result.metrics["sparsity_pruned_layers"] == pytest.approx(0.300, abs=0.0005)
    assert result.metrics["accuracy"] >= 0.8


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - TESTED_APART))
def test_any_other_shipped_recipe_runs_and_keeps_its_gates(name, folder):
    result = run(name, folder)
    assert result.record.status == "done", [str(gate) for gate in result.gates]
    assert all(step.input != step.output for step in result.steps if step.kind in {"editor", "trainer"})


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_recipe_says_what_it_is_for(name):
    text = SHIPPED[name].read_text(encoding="utf-8")
    assert text.startswith("#:schema ./recipe.schema.json\n# ")
    assert load_recipe(SHIPPED[name], find=discover().recipe).name == name
