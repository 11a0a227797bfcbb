"""`demiglace advise`: what it prints, without torch."""

import json


def test_it_tells_the_machine_and_the_formats(call):
    got = call("advise")
    assert got.code == 0
    assert "float32, eager" in got.out
    assert "cores" in got.out


def test_a_recipe_adds_what_its_steps_lack(call, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    got = call("advise", "recipe:digits", "--set", "dense.compile=true", "--json")
    told = json.loads(got.out)
    assert told["compiler"] is None
    assert [one["what"] for one in told["recipe"]] == ["dense"]
    assert "CXX" in told["recipe"][0]["to_do"]
    assert "nothing is missing here" in call("advise", "recipe:digits").out


def test_a_wrong_recipe_is_an_error(call):
    assert call("advise", "recipe:nothing").code == 2
