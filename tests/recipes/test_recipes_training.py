"""The shipped recipes in which passes take part in training, run on real digits."""

import json

import pytest
import torch

import demiglace

pytestmark = pytest.mark.slow


def run(name, *overrides, out=None):
    return demiglace.run(f"recipe:{name}", overrides=overrides, out=out)


def expect_trained(folder):
    """That a teacher's recipe was run to its end in a folder, and changed the network."""
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    [step] = record["steps"]
    assert step["input"] != step["output"]


def weights(model):
    return [one for one in model.parameters() if one.dim() > 1]


def test_95_percent_go_step_by_step_and_the_accuracy_stays():
    result = run("gradual-95")
    assert result.passed
    found, total = sum(int((one == 0).sum()) for one in weights(result.model)), 300 * 784 + 300 * 100 + 1000
    assert found == round(0.95 * total)
    assert result.metrics["accuracy"] >= 0.925


def test_98_percent_are_reported_beside_a_control_that_was_not_pruned():
    result = run("gradual-98", "dense.epochs=8", "gradual.epochs=12", "gate.accuracy.max_drop=0.04")
    assert result.passed
    step = result.steps[1]
    assert step.after.over(step.after.pruned).sparsity == pytest.approx(0.98, abs=1e-4)
    assert step.figures["control"]["epochs"] == step.figures["epochs"] == 12
    assert step.control["accuracy"].value > step.metrics["accuracy"].value
    assert step.control["accuracy"].value >= 0.92, "the control trains on densely"


def test_a_quarter_size_student_learns_from_a_teacher_that_its_recipe_trains(tmp_path):
    result = run("teacher-student", "distill.epochs=25", out=tmp_path / "run")
    expect_trained(tmp_path / "run" / "teacher")
    counted = sum(one.numel() for one in result.model.parameters())
    assert counted <= 431_080 / 4
    step = result.steps[0]
    alone = step.control["accuracy"].value
    assert step.metrics["accuracy"].value > alone > 0.9, "the same student on labels alone"
    assert "loss.soft.kl" in step.figures["history"][0]
    assert "loss.soft.kl" not in step.figures["control"]["history"][0]


def test_the_textbook_distillation_makes_the_divergence_fall_ten_times():
    history = run("distill-textbook").steps[0].figures["history"]
    assert history[-1]["step"] == 100
    assert history[-1]["loss"] < history[0]["loss"] / 10


def test_pruner_and_teacher_take_part_in_one_training(gradual_teacher):
    assert gradual_teacher.passed
    expect_trained(gradual_teacher.path / "teacher")
    step = gradual_teacher.steps[1]
    assert step.after.over(step.after.pruned).sparsity == pytest.approx(0.95, abs=1e-4)
    assert {"loss.task", "loss.soft.kl"} <= set(step.figures["history"][0])


def test_channels_really_go_while_the_network_trains(from_trained, tmp_path):
    result = run("gradual-channels", *from_trained, out=tmp_path / "run")
    assert result.passed
    shapes = {name: tuple(one.shape) for name, one in result.model.named_parameters() if one.dim() > 1}
    widths = {name: shapes[f"{name}.weight"][0] for name in ("conv1", "conv2", "fc1")}
    # Each point rounds to whole channels in each layer.
    assert widths == {
        "conv1": pytest.approx(10, abs=1),
        "conv2": pytest.approx(25, abs=1),
        "fc1": pytest.approx(250, abs=1),
    }
    assert shapes["fc1.weight"][1] == 16 * widths["conv2"]
    assert sum(widths.values()) == pytest.approx((20 + 50 + 500) / 2, abs=1)
    inputs = torch.rand(3, 1, 28, 28)
    assert torch.equal(demiglace.load(tmp_path / "run")(inputs), result.model(inputs))
