"""A run from end to end: what it leaves, what it refuses, and what it says when a pass misbehaves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import Interrupted, PassFailed, RecipeError, UsageError

TRAIN = {"use": "train.supervised", "id": "dense", "epochs": 1}
PRUNE = {"use": "prune.magnitude", "id": "prune", "amount": 0.5}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def batches(count: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 12, generator=generator), torch.arange(16) % 4) for _ in range(count)]


def test_run_json_tells_what_was_asked_done_and_measured(recipe, tmp_path):
    result = demiglace.run(recipe(TRAIN, PRUNE, evaluate=["evaluate.classification"]), out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done"
    assert [step["id"] for step in record["steps"]] == ["dense", "prune"]
    prune = record["steps"][1]
    assert prune["asked"] == [
        {"figure": "zeros", "asked": 64.0, "measured": 64.0, "over": ["fc1.weight", "fc2.weight"]}
    ]
    assert prune["before"]["zeros"] == 0
    assert prune["after"]["zeros"] == 64
    assert prune["input"] == record["steps"][0]["output"] != prune["output"]
    assert prune["metrics"]["accuracy"]["examples"] == 64
    assert prune["plugin"].startswith("pruners (demiglace ")
    assert record["environment"]["threads"] == torch.get_num_threads()
    assert record["data"]["splits"]["test"] == 64
    assert result.metrics["zeros"] == 64


def test_the_saved_model_computes_the_same_bits_in_a_fresh_process(recipe, tmp_path):
    result = demiglace.run(recipe(TRAIN, PRUNE), out=tmp_path / "run")
    inputs = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys, torch, demiglace\n"
        "model = demiglace.load(sys.argv[1])\n"
        "torch.save(model(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])\n"
    )
    paths = [tmp_path / "run", tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
    assert torch.equal(torch.load(paths[2], weights_only=True), result.model(inputs))


def test_the_same_recipe_gives_the_same_bits_twice_and_others_with_another_seed(recipe):
    digests = [demiglace.run(recipe(TRAIN, PRUNE, seed=seed)).steps[-1].output for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_callers_module_and_batches_need_neither_model_nor_data_table():
    module = net()
    result = demiglace.run(
        {"pass": [TRAIN, PRUNE], "evaluate": ["evaluate.classification"]},
        model=module,
        data={"train": batches(), "test": batches(1)},
    )
    assert result.model is module
    assert result.metrics["accuracy"] >= 0
    assert (module[0].weight == 0).sum() + (module[2].weight == 0).sum() == 64


def test_a_callers_model_opens_without_its_class_and_with_it(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.second(self.first(x).relu())

    result = demiglace.run(
        {"pass": [PRUNE]}, model=Own(), example_inputs=torch.randn(2, 12), out=tmp_path / "run"
    )
    inputs = torch.randn(5, 12)
    expected = result.model(inputs)
    assert torch.equal(demiglace.load(tmp_path / "run")(inputs), expected)
    assert torch.equal(demiglace.load(tmp_path / "run", model=Own)(inputs), expected)


def test_a_model_alone_is_enough_for_a_pass_that_needs_no_data():
    result = demiglace.run({"pass": [PRUNE]}, model=net())
    assert result.metrics["zeros"] == 64
    assert "macs" not in result.metrics


def test_dict_batches_reach_the_model_by_keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 4)

        def forward(self, features):
            return {"logits": self.fc(features)}

    data = [{"features": x, "labels": y} for x, y in batches()]
    result = demiglace.run(
        {"pass": [TRAIN, PRUNE], "evaluate": ["evaluate.classification"]}, model=Named(), data=data
    )
    assert result.metrics["zeros"] == 24


def test_masks_of_torch_prune_that_arrive_with_a_model_stay_in_force_while_it_trains():
    from torch.nn.utils import prune

    module = net()
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    zeros = module[0].weight == 0
    demiglace.run({"pass": [TRAIN]}, model=module, data=batches())
    assert (module[0].weight[zeros] == 0).all()
    assert (module[0].weight[~zeros] != 0).all()


def test_a_missed_gate_is_a_result_not_an_error(recipe):
    gate = {"accuracy": {"min": 0.999}, "sparsity": {"min": 0.3}}
    result = demiglace.run(recipe(PRUNE, evaluate=["evaluate.classification"], gate=gate))
    assert [verdict.passed for verdict in result.gates] == [False, True]
    assert not result.passed


def test_a_gate_measures_what_it_needs_at_the_step_that_it_compares_with(recipe):
    gate = {"accuracy": {"max_drop": 1.0, "against": "dense"}}
    result = demiglace.run(recipe(TRAIN, PRUNE, {"use": "evaluate.classification"}, gate=gate))
    assert "accuracy" in result.steps[0].metrics
    assert "accuracy" not in result.steps[1].metrics
    assert result.gates[0].reference == result.steps[0].metrics["accuracy"].value


def test_a_gate_can_compare_with_the_original_model(recipe):
    gate = {"bytes": {"max_ratio": 0.5, "against": "original"}}
    result = demiglace.run(recipe(PRUNE, gate=gate))
    assert result.gates[0].reference == result.record.original.bytes
    assert not result.passed


def test_the_teacher_may_be_a_recipe_that_runs_first(recipe, tmp_path):
    teacher = {"recipe": recipe(TRAIN)}
    student = recipe({**TRAIN, "with": [{"use": "distill.logits"}]}, teacher=teacher)
    demiglace.run(student, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "teacher" / "run.json").read_text())["status"] == "done"
    assert demiglace.load(tmp_path / "run" / "teacher") is not None


@pytest.mark.usefixtures("bad_plugin")
class TestMisbehaviour:
    def fails(self, recipe, use: str, **options: object) -> str:
        with pytest.raises(PassFailed) as caught:
            demiglace.run(recipe({"use": use, "id": "it", **options}))
        return str(caught.value)

    def test_a_pass_that_changes_nothing_is_an_error_with_its_reason(self, recipe):
        message = self.fails(recipe, "bad.nothing")
        assert "step 'it' (from bad (bad-passes 2.1)): changed nothing (fc1: it is perfect)" in message
        assert "allow_noop = true" in message

    def test_unless_the_recipe_allows_it(self, recipe):
        result = demiglace.run(recipe({"use": "bad.nothing", "allow_noop": True}))
        assert result.steps[0].left_alone == {"fc1": "it is perfect"}

    def test_nan_in_a_weight_stops_the_run_with_its_name(self, recipe):
        assert "left NaN or infinity in 'fc1.weight'" in self.fails(recipe, "bad.nan")

    def test_an_infinite_metric_stops_the_run_with_its_name(self, recipe):
        assert "metric 'peek' is inf" in self.fails(recipe, "bad.infinite")

    def test_an_exception_names_the_pass_its_plugin_and_version(self, recipe):
        assert "step 'it' (from bad (bad-passes 2.1)): KeyError: 'lost'" in self.fails(recipe, "bad.raises")

    def test_a_broken_promise_says_both_figures(self, recipe):
        assert "promised zeros = 3 and reached 1" in self.fails(recipe, "bad.promise")

    def test_an_evaluator_that_changes_the_model_is_found_out(self, recipe):
        assert "is an evaluator and yet changed the model" in self.fails(recipe, "bad.peek")

    def test_an_edit_that_does_not_fit_leaves_the_model_as_it_was(self):
        module = net()
        before = [parameter.clone() for parameter in module.parameters()]
        with pytest.raises(demiglace.DemiglaceError, match="a mask of shape"):
            demiglace.run({"pass": [{"use": "bad.misfit"}]}, model=module)
        assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))

    def test_a_failed_run_says_so_in_run_json_and_leaves_no_model(self, recipe, tmp_path):
        with pytest.raises(PassFailed):
            demiglace.run(recipe(TRAIN, {"use": "bad.raises"}), out=tmp_path / "run")
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["status"] == "failed"
        assert "KeyError" in record["error"]
        assert [(step["id"], step["status"]) for step in record["steps"]] == [
            ("dense", "done"),
            ("raises", "failed"),
        ]
        assert not (tmp_path / "run" / "model").exists()

    def test_an_impossible_order_names_both_passes_and_an_order_that_works(self, recipe):
        with pytest.raises(RecipeError) as caught:
            demiglace.check(
                recipe({"use": "bad.pack", "id": "pack"}, {"use": "bad.integer", "id": "int"}, PRUNE)
            )
        assert str(caught.value) == (
            "step 'pack' (bad.pack) needs weights.int8, which only the later step 'int' (bad.integer) gives\n"
            "  hint: this order works: prune, int, pack\n"
            "step 'prune' (prune.magnitude) needs weights.float, which step 'int' (bad.integer) destroys\n"
            "  hint: this order works: prune, int, pack"
        )

    def test_a_need_that_nothing_meets_names_the_passes_that_would(self, recipe):
        with pytest.raises(RecipeError, match=r"passes that give it: bad\.integer"):
            demiglace.check(recipe({"use": "bad.pack"}))


def test_a_run_that_is_stopped_leaves_a_consistent_directory(recipe, tmp_path):
    calls = iter(range(1000))

    def stop_at_the_third_batch() -> None:
        if next(calls) > 3:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        demiglace.run(recipe(TRAIN, PRUNE), out=tmp_path / "run", check_interrupt=stop_at_the_third_batch)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == record["steps"][0]["status"] == "interrupted"
    assert "interrupted" in (tmp_path / "run" / "run.log").read_text()
    assert not (tmp_path / "run" / "model").exists()


def test_a_directory_that_holds_something_is_not_written_into(recipe, tmp_path):
    (tmp_path / "precious").write_text("do not touch")
    with pytest.raises(UsageError, match="is not empty"):
        demiglace.run(recipe(PRUNE), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_data_that_the_model_does_not_take_is_refused_before_the_first_step(recipe):
    table = {"use": "fake", "shape": [13], "classes": 4}
    with pytest.raises(UsageError, match=r"does not take the data's inputs \(shapes \[\[2, 13\]\]\)"):
        demiglace.run(recipe(TRAIN, data=table))


def test_nan_in_the_given_weights_is_no_passs_fault():
    module = net()
    module[2].weight.data[1, 1] = float("nan")
    with pytest.raises(UsageError, match=r"the model has NaN or infinity in '2\.weight'"):
        demiglace.run({"pass": [PRUNE]}, model=module)


def test_data_without_the_split_that_a_pass_needs_says_what_it_has():
    with pytest.raises(RecipeError, match=r"hand it in: data=\{'train': \.\.\.\}; the data has test"):
        demiglace.run({"pass": [TRAIN]}, model=net(), data={"test": batches()})


def test_a_recipe_without_a_model_asks_for_one():
    with pytest.raises(RecipeError, match=r"the recipe has no \[model\], and none was handed in"):
        demiglace.run({"pass": [PRUNE]})


def test_a_device_that_is_not_there_is_named(recipe):
    with pytest.raises(UsageError, match="no device 'cuda:7' here"):
        demiglace.run(recipe(PRUNE, run={"device": "cuda:7"}))
