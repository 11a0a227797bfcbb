"""The envelope: what each table may hold, what is refused and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demiglace.errors import RecipeError
from demiglace.recipe import Recipe, load_recipe

FULL = """
name = "mnist-mlp-prune"
seed = 3
requires = ["acme-passes>=1.2"]
evaluate = ["evaluate.sparsity", { use = "evaluate.classification", top = 5 }]

[model]
use = "mlp"
widths = [784, 256, 10]

[data]
use = "mnist5k"
batch_size = 32
transform = ["RandomHorizontalFlip", { name = "Resize", size = 32 }]

[teacher]
use = "artifact"
path = "runs/teacher"

[run]
device = "cuda:1"
threads = 2
dtype = "bfloat16"

[[pass]]
id = "dense"
use = "train.supervised"
optimizer = { name = "Adam", lr = 1e-3 }

[[pass.with]]
use = "distill.logits"
temperature = 2.0

[[pass]]
use = "prune.magnitude"
amount = 0.3
allow_noop = true

[[pass]]
use = "train.supervised"

[[pass]]
use = "train.supervised"

[gate]
accuracy = { max_drop = 0.01, against = "dense" }
parameters = { max_ratio = 0.5, against = "original" }
"""


SEED = "a whole number between 0 and 9223372036854775807"


def test_every_table_of_the_envelope_is_read(load):
    recipe = load(FULL)
    assert (recipe.name, recipe.seed, recipe.requires) == ("mnist-mlp-prune", 3, ["acme-passes>=1.2"])
    assert recipe.model.use == "mlp"
    assert recipe.model.options == {"widths": [784, 256, 10]}
    assert (recipe.data.batch_size, recipe.data.eval_batch_size, recipe.data.options) == (32, 256, {})
    assert recipe.data.transform == [{"name": "RandomHorizontalFlip"}, {"name": "Resize", "size": 32}]
    assert (recipe.teacher.use, recipe.teacher.options) == ("artifact", {"path": "runs/teacher"})
    assert (recipe.run.device, recipe.run.threads, recipe.run.dtype) == ("cuda:1", 2, "bfloat16")
    assert [(one.use, one.options) for one in recipe.evaluate] == [
        ("evaluate.sparsity", {}),
        ("evaluate.classification", {"top": 5}),
    ]
    assert recipe.passes[0].options == {"optimizer": {"name": "Adam", "lr": 1e-3}}
    assert recipe.passes[0].participants[0].options == {"temperature": 2.0}
    assert [one.allow_noop for one in recipe.passes] == [False, True, False, False]
    assert recipe.gate["accuracy"].max_drop == 0.01
    assert recipe.gate["parameters"].against == "original"


def test_absent_ids_come_from_the_use_and_count_repeats(load):
    recipe = load(FULL)
    assert [one.id for one in recipe.passes] == ["dense", "magnitude", "supervised", "supervised-2"]
    assert recipe.passes[0].participants[0].id == "logits"


def test_a_generated_id_never_takes_a_written_or_reserved_one(load):
    recipe = load(
        "[[pass]]\nuse = 'a.x'\n[[pass]]\nuse = 'b.y'\nid = 'x'\n"
        "[[pass]]\nuse = 'c.model'\n[[pass]]\nuse = 'd.8 bit'"
    )
    assert [one.id for one in recipe.passes] == ["x-2", "x", "model-2", "pass-8-bit"]


def test_a_recipe_without_a_name_takes_the_files(load):
    assert load("[[pass]]\nuse = 'a'").name == "r"


def test_what_is_resolved_is_json_and_loads_to_the_same_recipe(load):
    recipe = load(FULL)
    again = load_recipe(json.loads(json.dumps(recipe.resolved(), allow_nan=False)))
    assert again == recipe
    assert again.resolved() == recipe.resolved()
    assert again != load(FULL, "seed=4")


def test_a_recipe_is_frozen_and_passes_through_the_loader(load):
    recipe = load(FULL)
    assert load_recipe(recipe) is recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 5


def test_every_place_leads_back_to_what_was_written(load):
    recipe = load(FULL)
    assert str(recipe.place(("pass", 1, "amount"))) == "r.toml:36:10"
    assert recipe.place(("pass", 1, "amount")).text == "amount = 0.3"
    assert str(recipe.place(("pass", 0, "with", 0, "temperature"), "key")) == "r.toml:32:1"
    assert str(recipe.place(("pass", 2, "epochs"), "header")) == "r.toml:39:1"
    assert str(recipe.place(("evaluate", 0, "use"))) == "r.toml:5:13"
    assert str(recipe.place(("pass", 1, "id"))) == "r.toml:34:1", "a generated id stands at its pass"
    assert load_recipe(recipe.resolved()).place(("seed",)) is None


def test_all_faults_of_the_envelope_come_at_once_in_the_order_of_the_text(faults):
    text = """seed = true
nam = "x"
requires = ["a b"]
evaluate = [3]
[model]
widths = [1]
[data]
use = "x"
batch_size = 0
transform = [{ size = 3 }]
[run]
thread = 2
dtype = "int8"
[[pass]]
id = "a b"
use = ""
allow_noop = "true"
[gate]
a = {}
b = { max_drop = 0.1 }
c = { max = 1, against = "original" }
d = { min = 2, max = 1 }
e = { max_ratio = -1, against = "original" }
"""
    assert faults(text) == [
        "r.toml:1:8: seed must be a whole number between 0 and 9223372036854775807, not true",
        "r.toml:2:1: unknown key nam",
        'r.toml:3:13: requires.0: "a b" is no requirement: write it like "acme-passes>=1.2"',
        "r.toml:4:13: evaluate.0 must be text or a table, not 3",
        "r.toml:5:1: model.use is missing",
        "r.toml:9:14: data.batch_size must be a whole number between 1 and 1048576, not 0",
        'r.toml:10:14: data.transform.0: a transform needs a name, as in { name = "Resize", size = 224 }',
        "r.toml:12:1: unknown key run.thread",
        'r.toml:13:9: run.dtype must be one of "float32", "float64", "bfloat16", "float16", not "int8"',
        'r.toml:15:6: pass.0.id: "a b" is no id: a letter, then at most 63 letters, digits, - and _',
        'r.toml:16:7: pass.0.use must be non-empty text, not ""',
        'r.toml:17:14: pass.0.allow_noop must be true or false, not "true"',
        "r.toml:19:5: gate.a: needs a bound: min, max, max_drop, max_rise, min_ratio or max_ratio",
        'r.toml:20:5: gate.b: needs `against`: the id of the pass to compare with, or "original"',
        "r.toml:21:5: gate.c: `against` has no bound to go with: max_drop, max_rise, min_ratio, max_ratio",
        "r.toml:22:5: gate.d: no figure can be above the lower and below the upper bound",
        "r.toml:23:19: gate.e.max_ratio must be a number of at least 0, not -1",
    ]


def test_an_unknown_key_shows_the_line_a_caret_and_the_nearest_name(message):
    assert message("[[pass]]\nuse = 'a'\n[run]\n  devise = 'cpu'") == (
        "r.toml:4:3: unknown key run.devise\n"
        "    4 |   devise = 'cpu'\n"
        "      |   ^^^^^^\n"
        "  hint: did you mean `device`?"
    )


def test_a_misspelt_pass_table_is_an_unknown_key_and_not_an_empty_recipe(faults):
    assert faults("[[passs]]\nuse = 'a'") == ["r.toml:1:1: pass is missing", "r.toml:1:3: unknown key passs"]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "+nan"])
def test_no_option_anywhere_is_nan_or_infinite(faults, number):
    value = "nan" if "nan" in number else number
    assert faults(f"[[pass]]\nuse = 'a'\nopt = {{ lr = [{number}] }}") == [
        f"r.toml:3:15: pass.0.opt.lr.0 must be a finite number, not {value}"
    ]


def test_an_id_that_is_used_twice_names_both_places(message):
    text = "[[pass]]\nuse = 'a'\nid = 'x'\n[[pass]]\nuse = 'b'\n[[pass.with]]\nuse = 'c'\nid = 'x'"
    assert message(text) == (
        'r.toml:8:6: pass.1.with.0: the id "x" is taken already at r.toml:3:6\n'
        "    8 | id = 'x'\n"
        "      |      ^^^\n"
        "  hint: each pass and participant needs an id of its own"
    )


@pytest.mark.parametrize("word", ["model", "pass", "original", "extends"])
def test_an_id_cannot_be_a_word_of_the_recipe(faults, word):
    assert faults(f"[[pass]]\nuse = 'a'\nid = '{word}'") == [
        f'r.toml:3:6: pass.0.id: "{word}" cannot be an id: it has a meaning of its own in a recipe'
    ]


def test_a_participant_has_no_participants(faults):
    text = "[[pass]]\nuse = 'a'\n[[pass.with]]\nuse = 'b'\n[[pass.with.with]]\nuse = 'c'"
    assert faults(text) == [
        "r.toml:5:13: pass.0.with.0 takes part in a training pass and cannot have participants itself"
    ]


def test_a_gate_against_no_pass_shows_the_nearest_id(message):
    text = "[[pass]]\nuse = 'a'\nid = 'dense'\n[gate]\nacc = { max_drop = 0.1, against = 'dens' }"
    assert message(text) == (
        'r.toml:5:35: gate.acc.against: there is no pass "dens"\n'
        "    5 | acc = { max_drop = 0.1, against = 'dens' }\n"
        "      |                                   ^^^^^^\n"
        "  hint: did you mean `dense`?"
    )


def test_a_gate_cannot_compare_with_a_participant(faults):
    text = (
        "[[pass]]\nuse = 'a'\n[[pass.with]]\nuse='b'\nid='x'\n[gate]\nacc = { max_rise = 0.1, against = 'x' }"
    )
    assert faults(text) == ['r.toml:7:35: gate.acc.against: there is no pass "x"']


def test_a_teacher_is_a_source_or_a_recipe_and_not_both(faults):
    passes = "[[pass]]\nuse = 'a'\n"
    words = "teacher: needs either `use` (a source) or `recipe` (a path), and not both"
    assert faults(passes + "[teacher]\nx = 1") == [f"r.toml:3:1: {words}"]
    both = "[teacher]\nuse = 'mlp'\nrecipe = 't.toml'"
    assert faults(passes + both, t=passes) == [f"r.toml:3:1: {words}"]


def test_a_teachers_recipe_is_loaded_from_beside_the_file_and_keeps_its_places(load, faults):
    text = "[teacher]\nrecipe = 'teacher.toml'\n[[pass]]\nuse = 'a'"
    recipe = load(text, teacher="seed = 9\n[[pass]]\nuse = 'train.supervised'")
    assert isinstance(recipe.teacher.recipe, Recipe)
    assert (recipe.teacher.recipe.name, recipe.teacher.recipe.seed) == ("teacher", 9)
    assert str(recipe.place(("teacher", "recipe", "pass", 0, "use"))) == "teacher.toml:3:7"
    assert load_recipe(recipe.resolved()) == recipe
    words = '"pass" cannot be an id: it has a meaning of its own in a recipe'
    assert faults(text, teacher="seed = ''\n[[pass]]\nuse = 'b'\nid = 'pass'") == [
        f'teacher.toml:1:8: teacher.recipe.seed must be {SEED}, not ""',
        f"teacher.toml:4:6: teacher.recipe.pass.0.id: {words}",
    ]


def test_what_a_teachers_recipe_says_of_its_own_passes_is_checked_too(faults):
    teacher = "[[pass]]\nuse = 'b'\n[gate]\nacc = { max_drop = 1, against = 'a' }"
    text = "[teacher]\nrecipe = 'teacher.toml'\n[[pass]]\nuse = 'a'"
    assert faults(text, teacher=teacher) == ['teacher.toml:4:33: gate.acc.against: there is no pass "a"']


def test_a_teachers_recipe_may_stand_in_the_same_file(load):
    recipe = load("[[teacher.recipe.pass]]\nuse = 'b.x'\n[[pass]]\nuse = 'a'")
    assert recipe.teacher.recipe.passes[0].id == "x"


def test_a_recipe_that_is_its_own_teacher_is_one_clear_error(message):
    assert message("[teacher]\nrecipe = 'r.toml'\n[[pass]]\nuse = 'a'") == (
        "r.toml:2:10: the recipe leads back to itself: r.toml -> r.toml\n"
        "    2 | recipe = 'r.toml'\n"
        "      |          ^^^^^^^^\n"
        "  hint: take one of the steps out"
    )


def test_python_data_must_be_plain():
    with pytest.raises(RecipeError) as caught:
        load_recipe({"pass": [{"use": "a", "path": Path(), "x": {1, 2}, "none": None, "many": [None]}]})
    assert [fault.message for fault in caught.value.faults] == [
        "pass.0.path must be plain data, not PosixPath",
        "pass.0.x must be plain data, not set",
        "pass.0.many.0 must be plain data, not NoneType",
    ]


def test_python_data_that_holds_itself_is_refused():
    step: dict[str, object] = {"use": "a"}
    step["again"] = step
    with pytest.raises(RecipeError, match="nested more than 32 deep"):
        load_recipe({"pass": [step]})


def test_an_empty_dict_is_no_recipe():
    with pytest.raises(RecipeError, match="the recipe is empty"):
        load_recipe({})
    with pytest.raises(RecipeError, match="pass must be a list that is not empty, not a list of 0"):
        load_recipe({"pass": []})


def test_a_shipped_recipe_is_found_by_name(write):
    shipped = write(digits="[[pass]]\nuse = 'a'")
    assert load_recipe("recipe:digits", find=lambda name: Path(f"{name}.toml")).name == shipped.stem
    with pytest.raises(RecipeError, match="recipe:digits cannot be looked up here"):
        load_recipe("recipe:digits")
