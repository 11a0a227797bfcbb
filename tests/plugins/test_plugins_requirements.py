import pytest

from demiglace.plugins import discover, requirement_faults
from demiglace.recipe import load_recipe

PLUGIN = "import demiglace\n@demiglace.hookimpl\ndef demiglace_passes(): return []"


def faults(requirement, block=()):
    recipe = load_recipe({"name": "needy", "requires": [requirement], "pass": [{"use": "any.thing"}]})
    return [str(fault) for fault in requirement_faults(recipe, discover(block=block))]


@pytest.fixture(autouse=True)
def acme(site):
    site.install("acme-passes", {"acme": PLUGIN}, version="1.3")


@pytest.mark.parametrize("met", ["acme-passes", "acme_passes>=1.2", "Acme-Passes~=1.3", "demiglace"])
def test_a_met_requirement_is_no_fault(met):
    assert faults(met) == []


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("acme-passes>=1.4", "acme-passes 1.3 is installed"),
        ("no-such-passes>=1", "not installed"),
    ],
)
def test_an_unmet_requirement_says_what_is_there(requirement, expected):
    assert expected in faults(requirement)[0]


def test_a_blocked_plugin_does_not_meet_a_requirement():
    assert "is blocked" in faults("acme-passes", block=["acme"])[0]


def test_a_broken_plugin_does_not_meet_a_requirement(site):
    site.install("bad-passes", {"bad": "1 / 0"})
    assert "is broken: ZeroDivisionError" in faults("bad-passes")[0]
