import subprocess
import sys

import pytest

from demiglace.errors import PluginError, RecipeError
from demiglace.plugins import BLOCK_VARIABLE, Status, discover

MINIMAL = """
import demiglace
from demiglace.passes import Config, Kind, PassSpec


class Options(Config):
    '''Does something.'''
"""

RECIPES = """
import demiglace
from pathlib import Path


@demiglace.hookimpl
def demiglace_recipes():
    return [{}]
"""


def announcing(name, implementation="acme_code:Code"):
    """A plugin module with one pass."""
    return f"""{MINIMAL}

@demiglace.hookimpl
def demiglace_passes():
    return [PassSpec({name!r}, Kind.EDITOR, Options, {implementation!r})]
"""


def plugin(registry, name):
    return next(one for one in registry.plugins if one.name == name)


@pytest.fixture
def acme(site):
    site.install("acme-passes", {"acme": announcing("acme.round")}, version="1.3")
    return site


def test_a_foreign_distributions_pass_is_found(acme):
    registry = discover()
    spec = registry.passes["acme.round"]
    assert str(registry.plugin_of(spec)) == "acme (acme-passes 1.3)"
    assert plugin(registry, "acme").status is Status.ACTIVE
    assert plugin(registry, "acme").passes == ("acme.round",)


def test_two_distributions_with_one_entry_point_name_are_both_seen(site):
    site.install("acme-one", {"one": announcing("one.a")}, points={"acme": "one"})
    site.install("acme-two", {"two": announcing("two.a")}, points={"acme": "two"})
    registry = discover()
    assert {"one.a", "two.a"} <= set(registry.passes)


BROKEN = {
    "import_error": ("import no_such_module_of_acme", "no_such_module_of_acme"),
    "syntax_error": ("def broken(:", "SyntaxError"),
    "sys_exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "no_hook": ("def demiglace_passes(): return []", "implements no hook"),
    "misspelt_hook": (
        "import demiglace\n@demiglace.hookimpl\ndef demiglace_pases(): return []",
        "demiglace_pases",
    ),
    "hook_with_argument": (
        "import demiglace\n@demiglace.hookimpl\ndef demiglace_passes(config): return []",
        "config",
    ),
    "hook_raises": (
        "import demiglace\n@demiglace.hookimpl\ndef demiglace_passes(): return 1 / 0",
        "ZeroDivisionError",
    ),
    "returns_number": ("import demiglace\n@demiglace.hookimpl\ndef demiglace_passes(): return 5", "not int"),
    "returns_names": (
        "import demiglace\n@demiglace.hookimpl\ndef demiglace_passes(): return ['acme.round']",
        "'acme.round'",
    ),
    "bad_name": (announcing("Acme Round"), "lower-case"),
    "bad_implementation": (announcing("acme.round", "acme_code.Code"), "package.module:Class"),
    "no_config": (
        announcing("acme.round").replace("EDITOR, Options", "EDITOR, dict"),
        "subclass of demiglace.passes.Config",
    ),
    "no_kind": (announcing("acme.round").replace("Kind.EDITOR", "'pruner'"), "kind must be a Kind"),
    "hidden_option": (
        announcing("acme.round").replace("    '''Does something.'''", "    use: int = 1"),
        "'use' cannot be reached",
    ),
    "twice": (announcing("acme.round").replace(")]", ")] * 2"), "announced twice"),
    "no_folder": (
        RECIPES.format("Path('no-such-folder')"),
        "no-such-folder",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_the_others_work(acme, name):
    text, expected = BROKEN[name]
    acme.install("bad-passes", {"bad": text}, version="0.7")
    registry = discover()
    broken = plugin(registry, "bad")
    assert (broken.distribution, broken.version, broken.status) == ("bad-passes", "0.7", Status.BROKEN)
    assert expected in broken.error
    assert "acme.round" in registry.passes


def test_the_error_of_a_broken_plugin_says_where(acme):
    acme.install("bad-passes", {"bad": "\n\nraise RuntimeError('no license')"})
    assert plugin(discover(), "bad").error.endswith("bad.py:3)")


def test_unreadable_entry_points_are_one_broken_plugin(acme):
    acme.install("bad-passes", {"bad": ""})
    (acme.folder / "bad_passes-1.0.dist-info" / "entry_points.txt").write_text("[demiglace]\nnonsense\n")
    registry = discover()
    broken = next(one for one in registry.plugins if one.distribution == "bad-passes")
    assert broken.status is Status.BROKEN
    assert "entry_points.txt" in broken.error
    assert "acme.round" in registry.passes


def test_a_contested_name_is_an_error_that_names_both_and_nothing_else_suffers(acme):
    text = announcing("acme.round").replace(")]", '), PassSpec("rival.x", Kind.EDITOR, Options, "a:B")]')
    acme.install("rival-passes", {"rival": text}, version="2.0")
    registry = discover()
    with pytest.raises(PluginError, match=r"acme-passes 1\.3.*rival-passes 2\.0"):
        registry.passes.get("acme.round")
    assert "acme.round" not in registry.passes
    assert "acme.round" not in list(registry.passes)
    assert "rival.x" in registry.passes
    for name, other in (("acme", "rival-passes"), ("rival", "acme-passes")):
        assert plugin(registry, name).status is Status.CONFLICT
        assert other in plugin(registry, name).error


def test_blocking_one_side_ends_a_conflict(acme):
    acme.install("rival-passes", {"rival": announcing("acme.round")})
    registry = discover(block=["rival"])
    assert registry.plugin_of(registry.passes["acme.round"]).distribution == "acme-passes"
    assert plugin(registry, "acme").status is Status.ACTIVE


@pytest.mark.parametrize("name", ["acme", "acme-passes", "Acme_Passes"])
def test_blocking_by_option(acme, name):
    registry = discover(block=[name])
    assert plugin(registry, "acme").status is Status.BLOCKED
    assert "acme.round" not in registry.passes


def test_a_blocked_plugin_is_not_imported(site, tmp_path):
    site.install("loud-passes", {"loud": f"open({str(tmp_path / 'imported')!r}, 'w')"})
    discover(block=["loud"])
    assert not (tmp_path / "imported").exists()


def test_blocking_by_environment(acme, monkeypatch):
    monkeypatch.setenv(BLOCK_VARIABLE, "other, acme")
    blocked = plugin(discover(), "acme")
    assert blocked.status is Status.BLOCKED
    assert BLOCK_VARIABLE in blocked.error


def test_blocking_an_unknown_plugin_is_an_error_with_the_nearest_name(acme):
    with pytest.raises(PluginError, match=r"(?s)'acmee'.*acme"):
        discover(block=["acmee"])


def test_an_unknown_name_gets_the_nearest_and_says_who_may_have_had_it(acme):
    acme.install("bad-passes", {"bad": "1 / 0"})
    registry = discover()
    hint = registry.absent_hint("acme.rond", registry.passes)
    assert "acme.round" in hint
    assert "bad (bad-passes 1.0) may give it, but is broken" in hint
    blocked = discover(block=["acme"])
    assert "acme (acme-passes 1.3) may give it, but is blocked" in blocked.absent_hint(
        "acme.round", blocked.passes
    )


def test_shipped_recipes_are_found_by_name(site):
    folder = site.folder / "shelf"
    folder.mkdir()
    (folder / "acme-small.toml").write_text("name = 'acme-small'\n")
    site.install(
        "acme-recipes",
        {"acme": RECIPES.format("Path(__file__).parent / 'shelf'")},
    )
    registry = discover()
    assert registry.recipe("acme-small") == folder / "acme-small.toml"
    with pytest.raises(RecipeError, match="acme-small"):
        registry.recipe("acme-smal")


def test_discovery_of_the_built_in_plugins_imports_no_torch():
    code = "import sys; from demiglace.plugins import discover; discover(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_built_in_plugin_is_broken():
    ours = [one for one in discover().plugins if one.distribution == "demiglace"]
    assert ours
    assert [one.error for one in ours if one.status is not Status.ACTIVE] == []
