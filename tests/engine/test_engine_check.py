"""What `check` and `plan` find in a recipe, all at once and each at its place."""

from __future__ import annotations

import pytest

import demiglace
from demiglace.errors import RecipeError
from demiglace.passes import Contract

RECIPE = """\
name = "wrong"

[model]
use = "mpl"
widths = [4, 2]

[data]
use = "fake"
shape = [4]
classes = 2

[[pass]]
use = "prune.magnitud"
amount = 0.5

[[pass]]
use = "prune.magnitude"
amount = 7.0
scopes = "global"

[[pass]]
use = "prune.magnitude"
amount = 0.5

[[pass.with]]
use = "prune.random"
amount = 0.5

[gate]
accuracy = { min = 0.5 }
"""


def faults(text: str, tmp_path, what=demiglace.check) -> list[str]:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        what(path)
    return [str(fault).replace(f"{tmp_path}/", "") for fault in caught.value.faults]


def test_every_fault_of_the_second_stage_comes_at_once_with_its_place(tmp_path):
    found = faults(RECIPE, tmp_path)
    assert [line.partition("\n")[0] for line in found] == [
        "wrong.toml:4:7: there is no model source 'mpl'",
        "wrong.toml:13:7: there is no pass 'prune.magnitud'",
        "wrong.toml:18:10: pass.1.amount must be a number between 0 and 1, not 7.0",
        "wrong.toml:19:1: unknown key pass.1.scopes",
        "wrong.toml:25:1: 'prune.magnitude' does not train, so nothing can take part in it",
    ]
    assert found[1] == (
        "wrong.toml:13:7: there is no pass 'prune.magnitud'\n"
        '   13 | use = "prune.magnitud"\n'
        "      |       ^^^^^^^^^^^^^^^^\n"
        "  hint: did you mean `prune.magnitude`?"
    )


def test_a_gate_that_nothing_measures_is_refused_before_the_run(tmp_path):
    text = RECIPE.replace("mpl", "mlp").partition("[[pass]]")[0] + (
        '[[pass]]\nuse = "prune.magnitude"\namount = 0.5\n[gate]\naccurracy = { min = 0.5 }\n'
    )
    text = text.replace('name = "wrong"', 'name = "wrong"\nevaluate = ["evaluate.classification"]')
    (found,) = faults(text, tmp_path)
    assert "nothing in this recipe measures 'accurracy'" in found
    assert "did you mean `accuracy`?" in found


def test_a_selector_that_matches_nothing_shows_the_nearest_names(tmp_path):
    text = RECIPE.replace("mpl", "mlp").partition("[[pass]]")[0] + (
        '[[pass]]\nuse = "prune.magnitude"\namount = 0.5\ntargets = ["fc11"]\nignore = ["type:Linaer"]\n'
    )
    found = faults(text, tmp_path, demiglace.plan)
    assert found[0].startswith(
        "wrong.toml:15:12: step 'magnitude': targets 'fc11' matches no layer and no parameter"
    )
    assert "did you mean `fc1`" in found[0]
    assert found[1].startswith("wrong.toml:16:11: step 'magnitude': ignore 'type:Linaer' matches no layer")
    assert "did you mean `Linear`" in found[1]


def test_training_without_a_training_split_names_the_source(tmp_path):
    text = 'model = { use = "mlp", widths = [4, 2] }\n[[pass]]\nuse = "train.supervised"\nepochs = 1\n'
    found = faults(text, tmp_path)
    assert "needs data.train, which nothing before it gives" in found[0]
    assert "add a [data] table" in found[0]


def test_what_evaluates_after_every_step_needs_its_data_from_the_beginning(tmp_path):
    text = 'evaluate = ["evaluate.classification"]\nmodel = { use = "mlp", widths = [4, 2] }\n'
    found = faults(text + '[[pass]]\nuse = "prune.magnitude"\namount = 0.5\n', tmp_path)
    assert [line.partition(",")[0] for line in found] == [
        f"wrong.toml:1:13: 'evaluate.classification' in `evaluate` needs {need} from the beginning"
        for need in ("data.test", "labels")
    ]
    assert "add a [data] table" in found[0]


def test_a_step_that_takes_away_what_evaluate_needs_is_told(tmp_path, monkeypatch):
    from demiglace_evaluators.classification import ClassificationConfig

    needs = Contract.of(needs=("weights.float",))
    monkeypatch.setattr(ClassificationConfig, "contract", lambda self: needs)
    text = 'evaluate = ["evaluate.classification"]\nmodel = { use = "mlp", widths = [4, 2] }\n'
    (found,) = faults(text + '[[pass]]\nuse = "quantize.dynamic"\n', tmp_path)
    assert "step 'dynamic' (quantize.dynamic) destroys weights.float" in found


def test_the_plan_says_amounts_in_words_as_a_tree():
    plan = demiglace.plan("recipe:digits")
    text = "\n".join(plan.lines())
    assert "235,146 parameters" in text
    assert "30 % of the weights" in text
    assert "accuracy at most 0.01 below 'dense'" in text


def test_a_container_that_holds_no_weight_itself_is_refused_before_the_run(tmp_path):
    text = (
        'model = { use = "torchvision", name = "resnet18" }\n'
        '[[pass]]\nuse = "prune.magnitude"\namount = 0.5\ntargets = ["layer1"]\n'
    )
    (found,) = faults(text, tmp_path, demiglace.plan)
    assert found.startswith("wrong.toml:5:11: step 'magnitude': targets ['layer1'] select no weight")
    assert "`layer1.*` takes those inside `layer1`" in found


@pytest.mark.parametrize(
    ("inside", "other"),
    [
        ({"use": "quantize.static"}, True),
        ({"use": "quantize.weight_only", "targets": ["fc1"]}, True),
        ({"use": "quantize.rate", "schedule": {"shape": "one_shot", "begin": 1.0}}, True),
        ({"use": "quantize.cast", "dtype": "float16"}, False),
    ],
)
def test_what_training_cannot_go_on_after_is_refused_inside_it(inside, other):
    recipe = {"pass": [{"use": "train.supervised", "epochs": 1, "with": [inside]}]}
    with pytest.raises(RecipeError, match="cannot act inside training") as caught:
        demiglace.check(recipe)
    [fault] = caught.value.faults
    instead = ", or take quantize.qat or share.kmeans in its place" if other else ""
    assert fault.hint == f"make it a pass of its own after 'supervised'{instead}"
