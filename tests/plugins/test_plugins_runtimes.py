"""`demiglace_runtimes`: what a second distribution runs its files with."""

import pytest
import torch

from demiglace.errors import PluginError, UsageError
from demiglace.plugins import discover

HOOK = """
import demiglace
from demiglace.passes import RuntimeSpec

@demiglace.hookimpl
def demiglace_runtimes():
    spec = RuntimeSpec({name!r}, {suffixes!r}, "acme_code:load", requires={requires!r}, install="acme-engine")
    return [spec]
"""
CODE = """
from torch import nn

def load(path, *, threads, precision, options):
    module = nn.Linear(2, 1)
    module.asked = (path.name, threads, precision, dict(options))
    return module
"""


def install(site, name="acme", suffixes=(".acme",), requires=()):
    hook = HOOK.format(name=name, suffixes=suffixes, requires=requires)
    site.install("acme-runtime", {"acme": hook, "acme_code": CODE}, version="1.3")


def test_a_plugins_runtime_opens_files(site):
    install(site)
    module = discover().open_file("acme", "net.acme", threads=2, precision="bf16", options={"fast": "1"})
    assert module.asked == ("net.acme", 2, "bf16", {"fast": "1"})
    assert module(torch.zeros(1, 2)).shape == (1, 1)


def test_a_runtime_that_is_not_installed_says_what_to_install(site):
    install(site, requires=("no_such_engine", "torch"))
    with pytest.raises(UsageError, match="needs no_such_engine, not installed") as caught:
        discover().open_file("acme", "net.acme")
    assert "pip install 'acme-engine'" in str(caught.value)


def test_an_unknown_runtime_names_the_nearest():
    with pytest.raises(UsageError, match=r"no runtime 'onx'(.|\n)*`onnx`"):
        discover().open_file("onx", "net.onnx")


def test_two_runtimes_of_one_name_are_a_conflict(site):
    install(site, name="onnx")
    with pytest.raises(PluginError, match=r"runtime 'onnx' is claimed by plugin acme \(acme-runtime 1\.3\)"):
        discover().open_file("onnx", "net.onnx")


def test_a_runtime_without_a_suffix_is_refused(site):
    install(site, suffixes=("acme",))
    [plugin] = [one for one in discover().plugins if one.name == "acme"]
    assert plugin.status == "broken"
    assert "suffixes must be at least one, each with its dot" in plugin.error
