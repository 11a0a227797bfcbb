import json

import tomli
from jsonschema import Draft7Validator


def test_the_template_is_a_right_recipe_and_fits_its_schema(call, here):
    assert call("init").code == 0
    text = (here / "recipe.toml").read_text()
    assert text.startswith("#:schema ./recipe.schema.json\n")
    schema = json.loads((here / "recipe.schema.json").read_text())
    assert list(Draft7Validator(schema).iter_errors(tomli.loads(text))) == []
    assert call("check", "recipe.toml").code == 0


def test_a_shipped_recipe_is_copied_by_name(call, here):
    got = call("init", "digits")
    assert got.code == 0
    assert "digits.toml" in got.out
    assert (here / "digits.toml").read_text().startswith("#:schema ./recipe.schema.json\n")
    assert call("check", "digits.toml").code == 0


def test_an_unknown_name_gets_the_nearest_and_writes_nothing(call, here):
    got = call("init", "digit")
    assert got.code == 2
    assert "digits" in got.err
    assert list(here.iterdir()) == []


def test_nothing_is_overwritten_without_force(call, here):
    (here / "recipe.toml").write_text("mine")
    got = call("init")
    assert got.code == 2
    assert "--force" in got.err
    assert (here / "recipe.toml").read_text() == "mine"
    assert not (here / "recipe.schema.json").exists()
    assert call("init", "--force").code == 0
    assert (here / "recipe.toml").read_text() != "mine"


def test_a_foreign_schema_file_is_kept_and_an_own_one_is_renewed(call, here):
    assert call("init").code == 0
    assert call("init", "--out", "second.toml").code == 0
    (here / "recipe.schema.json").write_text("{}")
    got = call("init", "--out", "third.toml")
    assert got.code == 2
    assert not (here / "third.toml").exists()


def test_a_folder_that_is_not_there_is_one_error(call, here):
    got = call("init", "--out", "no/such/recipe.toml")
    assert got.code == 2
    assert got.err.startswith("error: cannot write")
