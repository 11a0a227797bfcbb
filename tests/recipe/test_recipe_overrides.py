"""Overrides: what a path may lead to, what a value may be, and what goes wrong."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.errors import RecipeError
from demiglace.recipe import load_recipe

TEXT = """
seed = 0
[model]
use = "mlp"
widths = [1]
[[pass]]
id = "dense"
use = "train.supervised"
epochs = 3
optimizer = { name = "Adam" }
[[pass.with]]
id = "gradual"
use = "prune.magnitude"
amount = 0.1
[[pass]]
use = "prune.random"
"""


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("dense.epochs=5", ("pass", 0, "epochs"), 5),
        ("pass.0.epochs = 5", ("pass", 0, "epochs"), 5),
        ("gradual.amount=0.5", ("pass", 0, "with", 0, "amount"), 0.5),
        ("pass.0.with.0.amount=0.5", ("pass", 0, "with", 0, "amount"), 0.5),
        ("random.scope=global", ("pass", 1, "scope"), "global"),
        ("model.widths=[1,2]", ("model", "widths"), [1, 2]),
        ("model.widths.0=7", ("model", "widths"), [7]),
        ("dense.optimizer.lr=1e-2", ("pass", 0, "optimizer"), {"name": "Adam", "lr": 1e-2}),
        ("dense.optimizer={ name = 'SGD' }", ("pass", 0, "optimizer"), {"name": "SGD"}),
        ("dense.scheduler.name=StepLR", ("pass", 0, "scheduler"), {"name": "StepLR"}),
        ("run.threads=2", ("run", "threads"), 2),
        ("run.device=cuda:0", ("run", "device"), "cuda:0"),
        ("dense.targets=re:fc[12]=x#", ("pass", 0, "targets"), "re:fc[12]=x#"),
        ("gate.'top-1 accuracy'.min=0.9", ("gate", "top-1 accuracy"), {"min": 0.9}),
        ("random.on=true", ("pass", 1, "on"), True),
        ("random.on=True", ("pass", 1, "on"), "True"),
    ],
)
def test_an_override_replaces_what_its_path_names(load, override, path, value):
    held = load(TEXT, override).resolved()
    for part in path:
        held = held[part]
    assert held == value
    assert type(held) is type(value)


def test_overrides_apply_in_order_and_after_extends(load):
    recipe = load("extends = 'base.toml'\nseed = 1", "seed=2", "dense.epochs=7", "dense.epochs=8", base=TEXT)
    assert (recipe.seed, recipe.passes[0].options["epochs"]) == (2, 8)


def test_a_teachers_recipe_can_be_overridden_inside_and_whole(load):
    text = TEXT + "[teacher]\nrecipe = 't.toml'"
    others = {"t": "[[pass]]\nuse = 'a'", "u": "[[pass]]\nuse = 'b'"}
    assert load(text, "teacher.recipe.seed=4", **others).teacher.recipe.seed == 4
    assert load(text, "teacher.recipe=u.toml", **others).teacher.recipe.name == "u"


def test_a_recipe_that_is_loaded_already_can_be_overridden(load):
    recipe = load(TEXT)
    changed = load_recipe(recipe, overrides=["dense.epochs=6"])
    assert (changed.passes[0].options["epochs"], recipe.passes[0].options["epochs"]) == (6, 3)
    assert str(changed.place(("pass", 0, "epochs"))) == "--set:1:14"
    assert changed.place(("seed",)) == recipe.place(("seed",)) is not None


def test_what_an_override_makes_wrong_is_placed_in_the_override(message):
    assert message(TEXT, "run.threds=2") == (
        "--set:1:5: unknown key run.threds\n"
        "    1 | run.threds=2\n"
        "      |     ^^^^^^\n"
        "  hint: did you mean `threads`?"
    )


@pytest.mark.parametrize(
    ("override", "fault", "hint"),
    [
        ("dens.epochs=5", "1:1: there is no pass and no table dens", "did you mean `dense`?"),
        ("sed=5", "1:1: there is no pass and no table sed", "did you mean `seed`?"),
        ("dense=5", "1:1: dense is a pass", "say which option: dense.epochs=5"),
        ("pass.9.x=1", "1:6: pass is a list of 2; 9 is no index of it", "indices count from 0 to 1"),
        ("pass.-1.x=1", "1:6: pass is a list of 2; -1 is no index of it", "indices count from 0 to 1"),
        ("pass.dense.x=1", "1:6: pass is a list of 2; dense is no index of it", "the id: dense.x=..."),
        ("seed.x=1", "1:6: seed is 0, not a table", "set it whole: seed=..."),
        ("dense.epochs.x.y=1", "1:14: dense.epochs is 3, not a table", "set it whole: dense.epochs=..."),
        ("seed", '1:1: "seed" is not path=value', "write --set dense.epochs=5"),
        ("=3", '1:1: "=3" is not path=value', "write --set dense.epochs=5"),
        ('"a\\q"=3', '1:1: ""a\\q"=3" is not path=value', "write --set dense.epochs=5"),
        ("fc*.x=3", '1:1: "fc*.x=3" is not path=value', "write --set dense.epochs=5"),
        ("seed=", "1:6: not valid TOML: a value is missing", "write `key = value`"),
        ("seed=[1", "1:8: not valid TOML: the array is not closed", "close it with ]"),
        ("seed=1\nname='x'", "1:1: one override sets one value", "write --set once for each"),
        ("extends=b.toml", "1:1: extends cannot be overridden", "write it in the recipe"),
        ("a" + ".a" * 40 + "=1", "1:1: a key has 41 dotted parts; at most 16 are allowed", "is the file"),
    ],
)
def test_an_override_that_leads_nowhere_says_where_it_ends(message, override, fault, hint):
    lines = message(TEXT, override).splitlines()
    assert lines[0] == f"--set:{fault}"
    assert hint in lines[-1]


@settings(max_examples=300, deadline=None)
@given(st.text("aseds.=0123[]{}'\"\\#,\n \té_-:", max_size=16))
def test_any_text_is_an_override_or_a_recipe_error(text):
    with suppress(RecipeError):
        load_recipe({"seed": 1, "pass": [{"use": "a.s"}]}, overrides=[text])


def test_every_wrong_override_is_reported(faults):
    assert len(faults(TEXT, "a=1", "seed=3", "b=2")) == 2
