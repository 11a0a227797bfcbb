"""`demiglace_criteria`: criteria of importance that a second distribution gives."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import demiglace
from demiglace.engine.check import check
from demiglace.errors import PluginError, RecipeError
from demiglace.plugins import discover
from demiglace.plugins.schema import recipe_schema
from demiglace.recipe import load_recipe

HOOK = """
import demiglace
from demiglace.passes import CriterionSpec

@demiglace.hookimpl
def demiglace_criteria():
    return [CriterionSpec({name!r}, "acme_code:{function}", {gathers!r})]
"""
CODE = """
import torch

def last(group, statistics):
    return -torch.arange(float(group.units))

def strongest(group, statistics):
    [(one, inputs)] = statistics.read(group)
    return -inputs.power[one.index].mean(1)

number = 3
"""


def install(site, name="acme", function="last", gathers="nothing"):
    hook = HOOK.format(name=name, function=function, gathers=gathers)
    site.install("acme-criteria", {"acme": hook, "acme_code": CODE}, version="1.3")


def recipe(importance="acme"):
    return {"pass": [{"use": "prune.neurons", "amount": 0.5, "importance": importance}]}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def test_a_plugins_criterion_ranks_units(site):
    install(site)
    first = net()[0].weight[:4].detach()
    result = demiglace.run(recipe(), model=net(), example_inputs=INPUTS[:2])
    # The last units have the smallest scores.
    assert torch.equal(result.model[0].weight, first)
    assert "those of the smallest acme" in result.steps[0].words


def test_what_it_gathers_is_measured_and_asked_for_before_anything_runs(site):
    install(site, function="strongest", gathers="inputs")
    with pytest.raises(RecipeError, match=r"needs data\.calibration"):
        demiglace.run(recipe(), model=net(), example_inputs=INPUTS[:2])
    power = torch.relu(net()[0](INPUTS)).square().mean(0)
    weakest = power.argsort()[:4].sort().values
    result = demiglace.run(recipe(), model=net(), data=[(INPUTS, torch.zeros(16, dtype=torch.long))])
    assert torch.equal(result.model[0].weight, net()[0].weight[weakest])


def test_an_unknown_name_is_refused_at_check_with_the_nearest_and_its_place(site, tmp_path):
    install(site, name="acme-last")
    path = tmp_path / "r.toml"
    path.write_text('[[pass]]\nuse = "prune.channels"\namount = 0.5\nimportance = "acme-lost"\n')
    with pytest.raises(RecipeError) as caught:
        check(load_recipe(path), discover())
    [fault] = caught.value.faults
    assert "no plugin gives a criterion 'acme-lost'; did you mean `acme-last`?" in fault.message
    assert (fault.place.line, fault.place.column) == (4, 14)


def test_a_blocked_plugins_criterion_is_unknown(site, tmp_path):
    install(site)
    with pytest.raises(RecipeError, match="no plugin gives a criterion 'acme'"):
        check(load_recipe(recipe()), discover(["acme"]))
    check(load_recipe(recipe()), discover())


def test_checking_a_plugins_criterion_imports_neither_torch_nor_its_code(site, tmp_path):
    install(site)
    path = tmp_path / "r.toml"
    path.write_text('[[pass]]\nuse = "prune.channels"\namount = 0.5\nimportance = "acme"\n')
    code = (
        f"import sys; sys.path.insert(0, {str(site.folder)!r})\n"
        "from demiglace.engine.check import check\n"
        "from demiglace.plugins import discover\n"
        "from demiglace.recipe import load_recipe\n"
        f"check(load_recipe({str(path)!r}), discover())\n"
        "assert not {'torch', 'acme_code'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_plugins_that_give_one_name_are_an_error_that_names_both(site):
    install(site, name="l2")
    with pytest.raises(PluginError, match=r"criterion 'l2' is claimed by plugin acme \(acme-criteria 1\.3\)"):
        demiglace.run(recipe("l2"), model=net(), example_inputs=INPUTS[:2])
    [plugin] = (one for one in discover().plugins if one.name == "acme")
    assert plugin.status == "conflict"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"function": "absent"}, "no attribute 'absent'"), ({"function": "number"}, "is no function")],
)
def test_code_that_cannot_be_used_names_its_plugin(site, options, message):
    install(site, **options)
    with pytest.raises(PluginError, match=message) as caught:
        demiglace.run(recipe(), model=net(), example_inputs=INPUTS[:2])
    assert "acme (acme-criteria 1.3)" in str(caught.value)


def test_a_wrong_announcement_makes_the_plugin_broken_and_no_other(site):
    install(site, gathers="everything")
    [plugin] = (one for one in discover().plugins if one.name == "acme")
    assert "gathers must be 'nothing', 'inputs' or 'changes'" in plugin.error
    assert "l2" in discover().criteria


def test_plugins_and_the_schema_list_criteria(site, capsys):
    install(site)
    from demiglace.cli import main

    assert main(["plugins", "--json"]) == 0
    plugins = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert plugins["acme"]["criteria"] == ["acme"]
    definitions = recipe_schema(discover())["definitions"]
    names = definitions["pass.prune.channels"]["properties"]["importance"]["enum"]
    assert {"acme", "l2", "taylor"} <= set(names)
