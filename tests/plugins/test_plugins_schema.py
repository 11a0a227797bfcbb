import copy
from pathlib import Path

import pytest
import tomli
from jsonschema import Draft7Validator

from demiglace.plugins import discover
from demiglace.plugins.schema import recipe_schema

SHIPPED = sorted(discover().recipes.values())

RECIPE = """
name = "r"
evaluate = ["evaluate.classification"]

[model]
use = "mlp"
widths = [784, 10]

[data]
use = "mnist5k"
batch_size = 32

[[pass]]
use = "train.supervised"
epochs = 1

[[pass.with]]
use = "prune.magnitude"
amount = 0.5
schedule = { shape = "linear" }

[[pass]]
use = "prune.magnitude"
amount = 0.5

[gate]
accuracy = { min = 0.9 }
"""


@pytest.fixture(scope="module")
def schema():
    return recipe_schema(discover())


def faults(schema, recipe):
    """Where the leaves of what is wrong lie."""

    def leaves(error):
        inner = [leaf for one in error.context or () for leaf in leaves(one)]
        return inner or [error]

    return {
        "/".join(map(str, leaf.absolute_path)): leaf.message
        for error in Draft7Validator(schema).iter_errors(recipe)
        for leaf in leaves(error)
    }


def changed(path, value):
    recipe = tomli.loads(RECIPE)
    here = recipe
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return recipe


def test_it_is_a_draft_07_schema(schema):
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)


def test_every_reference_leads_somewhere(schema):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(schema)):
        here = schema
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]


def test_a_reference_has_nothing_beside_it(schema):
    def tables(value):
        if isinstance(value, dict):
            yield value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from tables(inner)

    assert [one for one in tables(schema) if "$ref" in one and len(one) > 1] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_fit(schema, path: Path):
    assert faults(schema, tomli.loads(path.read_text())) == {}


def test_a_right_recipe_fits(schema):
    assert faults(schema, tomli.loads(RECIPE)) == {}


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("pass", 1, "amount"), 7, "pass/1/amount"),
        (("pass", 1, "amont"), 0.5, "pass/1"),
        (("pass", 1, "use"), "prune.magnitud", "pass/1/use"),
        (("pass", 0, "with", 0, "amount"), "half", "pass/0/with/0/amount"),
        (("pass", 0, "with", 0, "use"), "evaluate.sparsity", "pass/0/with/0/use"),
        (("pass", 0, "with", 0, "schedule"), {"shape": "round"}, "pass/0/with/0/schedule/shape"),
        (("pass", 1, "schedule"), {}, "pass/1"),
        (("pass", 1, "with"), [], "pass/1"),
        (("model", "use"), "mnist5k", "model/use"),
        (("model", "widths"), "784", "model/widths"),
        (("data", "batch_size"), 0, "data/batch_size"),
        (("evaluate", 0), "evaluate.all", "evaluate/0"),
        (("gate", "accuracy"), {"minimum": 1}, "gate/accuracy"),
        (("seeds",), 1, ""),
    ],
)
def test_a_fault_is_told_where_it_is(schema, path, value, place):
    found = faults(schema, changed(path, value))
    assert list(found) == [place], found


def test_a_pass_needs_a_use_unless_the_recipe_extends_another(schema):
    recipe = {"pass": [{"id": "dense", "epochs": 5}]}
    assert list(faults(schema, recipe)) == ["pass/0"]
    assert faults(schema, recipe | {"extends": "base.toml"}) == {}


def test_a_source_needs_its_required_options(schema):
    recipe = copy.deepcopy(tomli.loads(RECIPE))
    del recipe["model"]["widths"]
    assert "widths" in faults(schema, recipe)["model"]


def test_a_foreign_pass_is_in_it(site):
    site.install("acme-passes", {"acme": site.ROUND})
    found = faults(recipe_schema(discover()), {"pass": [{"use": "acme.round", "step": 2.0}]})
    assert list(found) == ["pass/0/step"]
    assert recipe_schema(discover())["definitions"]["pass.acme.round"]["properties"]["step"]["description"]
