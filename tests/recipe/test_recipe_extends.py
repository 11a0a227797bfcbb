"""`extends`: tables merge by key, passes by id, and nothing goes in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest

from demiglace.errors import RecipeError, UsageError
from demiglace.recipe import load_recipe

BASE = """
name = "base"
evaluate = ["evaluate.sparsity"]

[model]
use = "mlp"
widths = [784, 10]
bias = false

[[pass]]
id = "dense"
use = "train.supervised"
epochs = 3
optimizer = { name = "Adam", lr = 1e-3 }

[[pass]]
use = "prune.magnitude"
amount = 0.3

[gate]
accuracy = { max_drop = 0.01, against = "dense" }
"""
EXTENDS = "extends = 'base.toml'\n"


def ids(recipe) -> list[str]:
    return [step.id for step in recipe.passes]


def test_tables_merge_by_key_and_other_values_are_replaced(load):
    recipe = load(
        EXTENDS + "name = 'r'\nevaluate = []\n[model]\nwidths = [4, 2]\n[gate]\nzeros.min = 9", base=BASE
    )
    assert (recipe.name, recipe.evaluate) == ("r", [])
    assert recipe.model.options == {"widths": [4, 2], "bias": False}
    assert set(recipe.gate) == {"accuracy", "zeros"}


def test_a_pass_of_a_known_id_merges_where_it_stands_and_a_new_one_is_appended(load):
    text = "[[pass]]\nid = 'dense'\nepochs = 9\noptimizer.lr = 0.5\n[[pass]]\nuse = 'prune.random'"
    recipe = load(EXTENDS + text, base=BASE)
    assert ids(recipe) == ["dense", "magnitude", "random"]
    assert recipe.passes[0].options == {"epochs": 9, "optimizer": {"name": "Adam", "lr": 0.5}}


def test_a_generated_id_can_be_merged_into(load):
    recipe = load(EXTENDS + "[[pass]]\nid = 'magnitude'\namount = 0.9", base=BASE)
    assert recipe.passes[1].options == {"amount": 0.9}


def test_a_table_that_names_another_thing_starts_afresh(load):
    text = "[model]\nuse = 'lenet'\n[[pass]]\nid = 'dense'\noptimizer = { name = 'SGD' }"
    recipe = load(EXTENDS + text, base=BASE)
    assert recipe.model.options == {}
    assert recipe.passes[0].options == {"epochs": 3, "optimizer": {"name": "SGD"}}


def test_an_option_that_is_called_name_starts_nothing_afresh(load):
    recipe = load(
        "extends = 'base.toml'\n[[pass]]\nid = 'x'\nname = 'b'", base="[[pass]]\nuse = 'x'\nname = 'a'\nv = 1"
    )
    assert recipe.passes[0].options == {"name": "b", "v": 1}


def test_a_teacher_goes_from_a_source_to_a_recipe(load):
    base = BASE + "[teacher]\nuse = 'mlp'\nwidths = [1]"
    recipe = load(EXTENDS + "[teacher]\nrecipe = 'base.toml'", base=base)
    assert (recipe.teacher.use, recipe.teacher.recipe.name) == (None, "base")


def test_participants_merge_by_id_too(load):
    base = "[[pass]]\nuse = 't.s'\n[[pass.with]]\nuse = 'd.logits'\nt = 2\nw = 1\n"
    recipe = load(
        EXTENDS
        + "[[pass]]\nid = 's'\n[[pass.with]]\nid = 'logits'\nt = 4\n[[pass.with]]\nuse = 'd.features'",
        base=base,
    )
    assert [(one.id, one.options) for one in recipe.passes[0].participants] == [
        ("logits", {"t": 4, "w": 1}),
        ("features", {}),
    ]


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[[pass]]\nuse = 'a.new'\nbefore = 'dense'", ["new", "dense", "magnitude"]),
        ("[[pass]]\nuse = 'a.new'\nafter = 'dense'", ["dense", "new", "magnitude"]),
        ("[[pass]]\nid = 'dense'\nafter = 'magnitude'", ["magnitude", "dense"]),
        ("[[pass]]\nid = 'magnitude'\nremove = true", ["dense"]),
    ],
)
def test_a_pass_is_placed_moved_or_removed(load, text, order):
    recipe = load(EXTENDS + text, base=BASE)
    assert ids(recipe) == order
    assert not any({"before", "after", "remove"} & set(step.options) for step in recipe.passes)


def test_what_cannot_be_placed_or_removed_is_said_all_at_once(message):
    text = """extends = 'base.toml'
[[pass]]
id = 'densee'
remove = true
[[pass]]
use = 'a'
after = 'magnitud'
[[pass]]
use = 'b'
before = 'dense'
after = 'dense'
[[pass]]
id = 'dense'
remove = 'yes'
[[pass]]
remove = true
"""
    lines = message(text, base=BASE).splitlines()
    assert [line for line in lines if line.startswith(("r.toml", "  hint"))] == [
        'r.toml:3:6: there is no pass "densee" to remove',
        "  hint: did you mean `dense`?",
        'r.toml:7:9: there is no pass "magnitud"',
        "  hint: did you mean `magnitude`?",
        "r.toml:8:1: only one of remove, before and after has a meaning",
        'r.toml:14:10: remove must be true or false, not "yes"',
        "  hint: Take the base's pass of this id out.",
        "r.toml:16:10: remove needs the id of a pass",
        "  hint: the base's passes: dense, magnitude",
    ]


def test_an_id_twice_in_the_extending_recipe_is_still_an_error(faults):
    text = EXTENDS + "[[pass]]\nid = 'dense'\nepochs = 1\n[[pass]]\nid = 'dense'\nuse = 'b'"
    assert faults(text, base=BASE) == ['r.toml:6:6: pass.2: the id "dense" is taken already at r.toml:3:6']


def test_faults_are_placed_in_the_file_that_wrote_them(faults):
    base = BASE.replace("amount = 0.3", "allow_noop = 1").replace('name = "base"', "name = 3")
    assert faults(EXTENDS + "seed = -1\n[[pass]]\nid = 'dense'\nallow_noop = 2", base=base) == [
        "base.toml:2:8: name must be non-empty text, not 3",
        "base.toml:18:14: pass.1.allow_noop must be true or false, not 1",
        "r.toml:2:8: seed must be a whole number between 0 and 9223372036854775807, not -1",
        "r.toml:5:14: pass.0.allow_noop must be true or false, not 2",
    ]


def test_of_several_bases_the_later_wins_and_a_common_one_counts_once(load):
    common = "[[pass]]\nuse = 'a.x'\nv = 1"
    one = "extends = 'common.toml'\nseed = 1\n[[pass]]\nid = 'x'\nv = 2"
    two = "extends = 'common.toml'\nseed = 2\n[[pass]]\nuse = 'a.x'"
    recipe = load("extends = ['one.toml', 'two.toml']\n", common=common, one=one, two=two)
    assert recipe.seed == 2
    assert [(step.id, step.options) for step in recipe.passes] == [("x", {"v": 2}), ("x-2", {})]


def test_paths_are_taken_from_the_folder_of_the_file_that_names_them(write):
    path = write(r="extends = 'sub/middle.toml'")
    Path("sub").mkdir()
    Path("sub/middle.toml").write_text("extends = '../base.toml'\nseed = 5")
    Path("base.toml").write_text(BASE)
    assert load_recipe(path).seed == 5


def test_a_dict_extends_from_the_working_directory(write):
    write(base=BASE)
    recipe = load_recipe({"extends": "base.toml", "seed": 8})
    assert (recipe.seed, recipe.name, len(recipe.passes)) == (8, "base", 2)
    assert str(recipe.place(("pass", 1, "amount"))) == "base.toml:18:10"
    recipe = load_recipe({"extends": "base.toml", "model": {"widths": [2]}})
    assert str(recipe.place(("model", "depth"), "header")) == "base.toml:5:1"


def test_a_recipe_that_extends_itself_is_one_clear_error(message):
    assert message("seed = 1\nextends = 'r.toml'") == (
        "r.toml:2:11: the recipe leads back to itself: r.toml -> r.toml\n"
        "    2 | extends = 'r.toml'\n"
        "      |           ^^^^^^^^\n"
        "  hint: take one of the steps out"
    )


def test_a_longer_circle_names_every_step(faults):
    assert faults("extends = 'b.toml'", b="extends = ['./c.toml']", c="extends = 'r.toml'") == [
        "c.toml:1:11: the recipe leads back to itself: r.toml -> b.toml -> c.toml -> r.toml"
    ]


def test_a_chain_of_thousands_of_files_is_refused(write):
    for index in range(150):
        Path(f"f{index}.toml").write_text(f"extends = 'f{index + 1}.toml'")
    with pytest.raises(RecipeError, match="the recipe leads to more than 100 files"):
        load_recipe("f0.toml")


def test_teachers_and_students_that_double_at_each_step_are_refused(write):
    for index in range(40):
        Path(f"f{index}.toml").write_text(
            f"[teacher]\nrecipe = 'f{index + 1}.toml'\n[student]\nrecipe = 'f{index + 1}.toml'"
        )
    with pytest.raises(RecipeError, match=r"the recipe leads to more than 100 files|there is no file"):
        load_recipe("f0.toml")


def test_a_missing_base_is_placed_at_its_name(message):
    assert message("extends = 'bas.toml'", base=BASE) == (
        "r.toml:1:11: there is no file bas.toml\n"
        "    1 | extends = 'bas.toml'\n"
        "      |           ^^^^^^^^^^\n"
        "  hint: did you mean base.toml?"
    )


@pytest.mark.parametrize("value", ["3", "''", "[3]", "{ path = 'x' }"])
def test_extends_is_a_path_or_a_list_of_paths(faults, value):
    column = 12 if value == "[3]" else 11
    assert faults(f"extends = {value}") == [f"r.toml:1:{column}: extends must be a path or a list of paths"]


def test_a_shipped_recipe_can_be_extended_and_an_unknown_one_is_placed(write):
    write(base=BASE, r="extends = 'recipe:base'", s="extends = 'recipe:none'")

    def find(name: str) -> Path:
        if name == "none":
            raise UsageError("no recipe is called none")
        return Path(f"{name}.toml")

    assert ids(load_recipe("r.toml", find=find)) == ["dense", "magnitude"]
    with pytest.raises(RecipeError, match=r"s\.toml:1:11: no recipe is called none"):
        load_recipe("s.toml", find=find)
