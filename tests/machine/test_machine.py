"""What is read of a machine, and what is advised of it."""

import pytest

from demiglace.advice import format_advice, recipe_advice
from demiglace.engine import check
from demiglace.machine import Processor, compiler, processor
from demiglace.machine.processor import told_by_cpuinfo
from demiglace.passes import RuntimeSpec
from demiglace.plugins import discover
from demiglace.plugins.registry import Names
from demiglace.recipe import load_recipe

INTEL = """processor : 0
model name : Intel(R) Xeon(R)
flags  : fpu sse avx2 avx512f avx512_vnni avx512vbmi amx_int8 amx_bf16 avx512_bf16

processor : 1
model name : another
flags : fpu
"""
ARM = "processor : 0\nFeatures : fp asimd asimddp i8mm bf16 sve\n"
MODERN_FEATURES = frozenset({"avx512", "int8 dot products", "bfloat16"})
PERMUTING = Processor("newest", "x86_64", 2, MODERN_FEATURES | {"byte permutation"})
PLAIN = Processor("old", "x86_64", 2, frozenset({"avx2"}))
MODERN = Processor("new", "x86_64", 2, MODERN_FEATURES)


def test_linux_tells_the_instructions_of_the_first_processor():
    name, features = told_by_cpuinfo(INTEL)
    assert name == "Intel(R) Xeon(R)"
    assert features == {
        *("avx2", "avx512", "byte permutation"),
        *("int8 dot products", "int8 matrices", "bfloat16"),
    }
    assert told_by_cpuinfo(ARM)[1] == {"neon", "int8 dot products", "int8 matrices", "bfloat16", "sve"}
    assert told_by_cpuinfo("") == ("", frozenset())


def test_the_machine_of_the_test_is_read():
    found = processor()
    assert found.cores >= 1
    assert found.architecture


def test_a_compiler_that_is_not_there_is_none(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler() is None


@pytest.fixture
def registry(monkeypatch):
    """The installed plugins, with one runtime whose package is there and one whose is not."""
    import dataclasses

    specs = [
        RuntimeSpec("here", (".h",), "a:b", exporter="export.packed", requires=("json",)),
        RuntimeSpec(
            "absent", (".a",), "a:b", exporter="export.absent", requires=("no_such",), install="acme[x]"
        ),
    ]
    found = discover()
    claims = [(one.name, one, found.plugins[0]) for one in specs]
    return dataclasses.replace(found, runtimes=Names("runtime", claims))


def states(machine, registry, found="/usr/bin/g++"):
    return {one.what: one for one in format_advice(machine, found, registry)}


def test_what_is_fast_depends_on_the_processor(registry):
    assert states(MODERN, registry)["int8, here"].state == "fast"
    assert states(PLAIN, registry)["int8, here"].state == "works"
    assert states(MODERN, registry)["bfloat16"].state == "fast"
    assert states(PLAIN, registry)["bfloat16"].state == "works"


def test_what_is_missing_says_what_to_install(registry):
    absent = states(MODERN, registry, found=None)
    assert absent["int8, absent"].to_do == "pip install 'acme[x]'"
    assert absent["float32, compiled"].state == "missing"
    assert "apt-get install g++" in absent["float32, compiled"].to_do


def advised(passes, registry, machine=MODERN, found="/usr/bin/g++"):
    data = {"use": "fake", "shape": [4]}
    recipe = {"model": {"use": "mlp", "widths": [4, 3]}, "data": data, "pass": passes}
    checked = check(load_recipe(recipe), registry)
    return [(one.what, one.state) for one in recipe_advice(checked, machine, found, registry)]


def test_a_recipe_is_told_what_its_steps_lack(registry):
    train = {"use": "train.supervised", "epochs": 1, "compile": True}
    latency = {"use": "evaluate.latency", "runtimes": ["absent", "inductor"]}
    assert advised([train, latency], registry, found=None) == [
        ("supervised", "missing"),
        ("latency", "missing"),
        ("latency", "missing"),
    ]
    assert advised([train], registry) == []


def test_a_recipe_is_told_what_this_processor_does_not_speed_up(registry):
    cast, integers = {"use": "quantize.cast"}, {"use": "quantize.dynamic"}
    assert advised([cast], registry, PLAIN) == [("cast", "works")]
    assert advised([integers], registry, PLAIN) == [("dynamic", "works")]
    assert advised([integers], registry, MODERN) == []


def test_integers_without_zeros_need_a_processor_and_a_compiler(registry):
    what = "zeros in int8, eager"
    assert states(PERMUTING, registry)[what].state == "fast"
    assert states(PERMUTING, registry, found=None)[what].state == "missing"
    assert "no byte permutation" in states(MODERN, registry)[what].why
    passes = [{"use": "quantize.static"}, {"use": "deploy.sparse_int8"}]
    assert advised(passes, registry, PERMUTING) == []
    assert advised(passes, registry, PERMUTING, found=None) == [("sparse_int8", "missing")]
    assert advised(passes, registry, MODERN) == [("sparse_int8", "works")]
