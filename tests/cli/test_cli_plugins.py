import json

import pytest

RECIPE = '[[pass]]\nuse = "acme.round"\nstep = 0.1\n'


@pytest.fixture
def acme(site):
    site.install("acme-passes", {"acme": site.ROUND}, version="1.3")
    return site


def test_the_table_shows_a_foreign_plugin(call, acme):
    got = call("plugins")
    assert got.code == 0
    row = next(line for line in got.out.splitlines() if line.startswith("acme"))
    assert row.split()[:4] == ["acme", "acme-passes", "1.3", "active"]
    assert "acme.round" in row


def test_the_table_tells_all_that_a_plugin_gives(call):
    rows = call("plugins").out
    for given in ("passes: prune.", "criteria: l1", "roundings:", "sources: mlp", "recipes: "):
        assert given in rows


def test_json_tells_everything(call, acme):
    acme.install("bad-passes", {"bad": "import no_such_module_of_acme"}, version="0.7")
    plugins = {one["name"]: one for one in json.loads(call("plugins", "--json").out)}
    assert plugins["acme"] == {
        "name": "acme",
        "distribution": "acme-passes",
        "version": "1.3",
        "status": "active",
        "error": None,
        "passes": ["acme.round"],
        "sources": [],
        "recipes": [],
        "rules": [],
        "roundings": [],
        "criteria": [],
        "runtimes": [],
    }
    assert plugins["bad"]["status"] == "broken"
    assert "no_such_module_of_acme" in plugins["bad"]["error"]


def test_a_broken_plugin_is_named_with_its_fault_and_the_others_are_listed(call, acme):
    acme.install("bad-passes", {"bad": "1 / 0"}, version="0.7")
    got = call("plugins")
    assert got.code == 0
    assert "bad (bad-passes 0.7) is broken: ZeroDivisionError: division by zero" in got.out
    assert "acme.round" in got.out


def test_a_contested_name_is_refused_and_both_are_named(call, acme, here):
    acme.install("rival-passes", {"rival": acme.ROUND}, version="2.0")
    (here / "r.toml").write_text(RECIPE)
    got = call("check", "r.toml")
    assert got.code == 2
    assert "r.toml:2:7: the pass 'acme.round' is claimed by" in got.err
    assert "acme (acme-passes 1.3)" in got.err
    assert "rival (rival-passes 2.0)" in got.err
    assert call("check", "r.toml", "--no-plugin", "rival").code == 0


def test_a_blocked_plugins_pass_is_unknown_and_the_error_says_why(call, acme, here, monkeypatch):
    (here / "r.toml").write_text(RECIPE)
    assert call("check", "r.toml").code == 0
    by_option = call("check", "r.toml", "--no-plugin", "acme")
    assert by_option.code == 2
    assert "acme (acme-passes 1.3) may give it, but is blocked" in by_option.err
    monkeypatch.setenv("DEMIGLACE_BLOCK_PLUGINS", "acme")
    assert "blocked by DEMIGLACE_BLOCK_PLUGINS" in call("check", "r.toml").err


def test_requirements_of_a_recipe_are_checked(call, acme, here):
    (here / "r.toml").write_text(f'requires = ["acme-passes>=1.4"]\n{RECIPE}')
    got = call("check", "r.toml")
    assert got.code == 2
    assert "r.toml:1:13: the recipe requires acme-passes>=1.4, but acme-passes 1.3 is installed" in got.err


def test_describe_tells_options_ranges_defaults_and_contract(call):
    got = call("describe", "prune.magnitude")
    assert got.code == 0
    assert "amount: number, 0 to 1" in got.out
    assert 'default "global"' in got.out
    assert "gives weights.masked" in got.out
    assert 'use = "prune.magnitude"' in got.out


def test_describe_as_json_names_the_plugin(call, acme):
    described = json.loads(call("describe", "acme.round", "--json").out)
    assert described["kind"] == "editor"
    assert (described["distribution"], described["version"]) == ("acme-passes", "1.3")
    assert described["options"] == [
        {
            "name": "step",
            "type": "number",
            "range": "0 to 1",
            "required": False,
            "default": 0.01,
            "meaning": "The distance of two grid points.",
        }
    ]


def test_describe_takes_sources(call):
    assert "model source of plugin sources (demiglace" in call("describe", "mlp").out


def test_describe_of_an_unknown_name_gets_the_nearest(call):
    got = call("describe", "magnitude")
    assert got.code == 2
    assert "prune.magnitude" in got.err
