"""`demiglace_rules`: a plugin's operator, with and without its rule."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import PluginError
from demiglace.graph import rules
from demiglace.plugins import discover

HOOK = """
import demiglace

@demiglace.hookimpl
def demiglace_rules():
    return ["acme_rules"]
"""
RULE = """
from demiglace.graph import Call, Value, rule

@rule("{operator}")
def doubled(call: Call) -> Value:
    return call["x"]
"""
RECIPE = {"pass": [{"use": "prune.channels", "amount": 0.5}]}


@torch.library.custom_op("acme::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@double.register_fake
def _(x):
    return torch.empty_like(x)


class Doubling(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.third(torch.relu(self.second(double(self.first(x)))))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Rules that a test registers go with it."""
    for table in (rules.RULES, rules.RESIZES):
        before = dict(table)
        yield
        table.clear()
        table.update(before)
        return


def pruned():
    torch.manual_seed(0)
    return demiglace.run(RECIPE, model=Doubling(), example_inputs=torch.randn(2, 3, 4, 4))


def test_an_operator_without_a_rule_keeps_what_it_touches():
    result = pruned()
    assert (result.model.first.out_channels, result.model.second.out_channels) == (8, 4)
    assert "acme.double" in result.steps[0].left_alone["first.weight"]


def test_a_plugins_rule_lets_structures_go_on_both_sides_of_its_operator(site):
    site.install("acme-passes", {"acme": HOOK, "acme_rules": RULE.format(operator="acme.double")})
    result = pruned()
    assert (result.model.first.out_channels, result.model.second.in_channels) == (4, 4)
    assert result.steps[0].verified["equality"] == "exact"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"acme": HOOK}, "No module named 'acme_rules'"),
        (
            {"acme": HOOK, "acme_rules": RULE.format(operator="aten.conv2d")},
            "'aten.conv2d' has a rule already",
        ),
        ({"acme": HOOK, "acme_rules": "1 / 0"}, "division by zero"),
    ],
)
def test_rules_that_cannot_be_used_name_their_plugin(site, modules, message):
    site.install("acme-passes", modules, version="1.3")
    with pytest.raises(PluginError, match=message) as caught:
        pruned()
    assert "acme (acme-passes 1.3)" in str(caught.value)


def test_finding_rules_imports_none_of_them(site):
    site.install("acme-passes", {"acme": HOOK, "acme_rules": "1 / 0"})
    [plugin] = (one for one in discover().plugins if one.name == "acme")
    assert (plugin.status, plugin.rules) == ("active", ("acme_rules",))
    # Blocked, its rules are left out.
    discover(["acme"]).load_registered()
