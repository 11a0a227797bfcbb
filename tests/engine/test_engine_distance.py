"""A participant far from its trainer in the file is warned of, in the plan and in the run."""

from __future__ import annotations

import json

import pytest

import demiglace
from demiglace.engine.events import Listener

TOP = """\
name = "far"

[model]
use = "mlp"
widths = [12, 8, 4]

[[pass]]
id = "dense"
use = "train.supervised"
epochs = 1
"""
DATA = """
[data]
use = "fake"
shape = [12]
classes = 4
"""
PRUNE = """
[[pass.with]]
use = "prune.magnitude"
amount = 0.5
"""
MORE = PRUNE.replace("use", 'id = "more"\nuse')
UNNAMED = TOP.replace('name = "far"', "")


def warnings(tmp_path, *parts):
    path = tmp_path / "recipe.toml"
    path.write_text("".join(parts))
    return [str(warning) for warning in demiglace.plan(path).warnings], path


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((TOP, PRUNE, DATA), []),
        ((TOP, "\n" * 20, PRUNE, DATA), []),
        ((TOP, DATA, PRUNE), ["with [data] between"]),
        ((TOP, "\n" * 40, PRUNE, DATA), ["stands 45 lines above (line 7)"]),
        ((TOP, PRUNE, DATA, MORE), ["participant 'more' takes part in 'dense'"]),
        ((DATA.lstrip(), UNNAMED, PRUNE, "\n" * 25, MORE), []),
    ],
    ids=["near", "some lines", "table between", "many lines", "second", "each after the other"],
)  # fmt: skip
def test_distance_is_warned_of(tmp_path, parts, said):
    found, _ = warnings(tmp_path, *parts)
    assert len(found) == len(said)
    for one, part in zip(found, said, strict=True):
        assert part in one
        assert "[[pass.with]]" in one, "the line is shown"


def test_plan_and_run_say_it(tmp_path, capsys):
    from demiglace.cli import main

    [said], path = warnings(tmp_path, TOP, DATA, PRUNE)
    assert main(["plan", str(path)]) == 0
    assert f"warning: {said}" in capsys.readouterr().err
    assert main(["plan", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [said]
    heard = []

    class Listening(Listener):
        def warning(self, step, text):
            heard.append((step, text))

    demiglace.run(path, listener=Listening())
    assert heard == [("plan", said)]


def test_a_recipe_from_python_has_no_lines():
    table = {"use": "train.supervised", "epochs": 1, "with": [{"use": "prune.magnitude", "amount": 0.5}]}
    recipe = {
        "model": {"use": "mlp", "widths": [12, 8, 4]},
        "data": {"use": "fake", "shape": [12]},
        "pass": [table],
    }
    assert demiglace.plan(recipe | {"name": "python"}).warnings == ()
