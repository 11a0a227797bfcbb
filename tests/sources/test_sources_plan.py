"""Sources and transforms inside a whole recipe."""

import pytest

import demiglace
from demiglace.errors import RecipeError, UsageError

RECIPE = """name = "try"
[model]
use = "mlp"
widths = [4, 2]
[data]
use = "fake"
shape = [1, 2, 2]
transform = [
  { name = "Normalise", mean = [0.5], std = [0.2] },
  { name = "RandomCrop", size = 2 },
]
[[pass]]
use = "prune.magnitude"
amount = 0.5
"""


def test_planning_points_at_every_wrong_transform(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    with pytest.raises(RecipeError) as caught:
        demiglace.plan(path)
    assert [(fault.place.line, fault.place.column) for fault in caught.value.faults] == [(9, 3), (10, 3)]
    assert "Normalize" in caught.value.faults[0].hint


def python_recipe(path):
    model = {"use": "python", "path": str(path), "factory": "make"}
    prune = {"use": "prune.magnitude", "amount": 0.5}
    return {"name": "local", "model": model, "pass": [prune], "data": {"use": "fake", "shape": [4]}}


def test_a_recipe_runs_local_code_only_when_the_caller_allows_the_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\n\ndef make():\n    return nn.Linear(4, 2)\n")
    with pytest.raises(UsageError, match="--allow-code"):
        demiglace.run(python_recipe(path))
    result = demiglace.run(python_recipe(path), allow_code=[path])
    assert int((result.model.weight == 0).sum()) == 4
