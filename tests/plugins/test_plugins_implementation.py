import pytest

from demiglace.errors import PluginError
from demiglace.plugins import discover

PLUGIN = """
import demiglace
from demiglace.passes import Config, Kind, PassSpec


class Options(Config):
    '''Does something.'''


@demiglace.hookimpl
def demiglace_passes():
    return [PassSpec("acme.round", Kind.EDITOR, Options, "acme_code:Code")]
"""

EDITOR = """
from demiglace.passes import Editor


class Code(Editor):
    def edits(self, model, context, amount=None):
        return []
"""


def implementation(site, code, **metadata):
    site.install("acme-passes", {"acme": PLUGIN, "acme_code": code}, version="1.3", **metadata)
    registry = discover()
    return registry.implementation(registry.passes["acme.round"])


def test_the_class_is_imported_on_demand(site):
    assert implementation(site, EDITOR).__name__ == "Code"


FAULTS = {
    "import_error": ("import no_such_module_of_acme", "no_such_module_of_acme"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "missing_class": ("", "Code"),
    "other_interface": ("from demiglace.passes import Evaluator\nclass Code(Evaluator): pass", "Editor"),
    "no_class": ("Code = 5", "Editor"),
    "abstract": ("from demiglace.passes import Editor\nclass Code(Editor): pass", "does not implement edits"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_class_that_cannot_be_had_names_plugin_and_version(site, name):
    code, expected = FAULTS[name]
    with pytest.raises(PluginError) as caught:
        implementation(site, code)
    assert "'acme.round' of plugin acme (acme-passes 1.3)" in str(caught.value)
    assert expected in str(caught.value)


def test_the_cause_keeps_its_traceback(site):
    with pytest.raises(PluginError) as caught:
        implementation(site, "1 / 0")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_missing_extra_says_which_to_install(site):
    needs = ('no-such-module-of-acme>=1 ; extra == "fancy"', "pluggy", 'x ; extra == "other"')
    with pytest.raises(PluginError, match=r"pip install 'acme-passes\[fancy\]'"):
        implementation(site, "import no_such_module_of_acme.inner", requires=needs)
