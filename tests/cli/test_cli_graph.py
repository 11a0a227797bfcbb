"""`demiglace graph`: what can be removed, and what cannot and why."""

import json
from pathlib import Path

import pytest

NET = """
from torch import nn


class Residual(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(depth))
        self.norm = nn.BatchNorm2d(8)
        self.mixed = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.convs:
            x = x + conv(x)
        return self.head(self.mixed(self.norm(x)).mean((2, 3)).cumsum(1))


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else x
"""
ATTENTION = """
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]
"""
RECIPE = """
name = "small"

[model]
use = "python"
path = "net.py"
factory = "Residual"
options = { depth = 1 }

[data]
use = "fake"
shape = [3, 6, 6]

[[pass]]
use = "prune.channels"
amount = 0.5
"""


@pytest.fixture
def small(here):
    (here / "net.py").write_text(NET)
    (here / "small.toml").write_text(RECIPE)
    return ["small.toml", "--allow-code", "."]


def test_json_tells_groups_with_all_their_layers_and_what_is_frozen_by_which_op(call, small):
    got = call("graph", *small, "--json")
    assert got.code == 0, got.err
    told = json.loads(got.out)
    [stream] = told["groups"]
    assert stream == {
        "name": "stem",
        "kind": "channels",
        "units": 8,
        # Rows and biases of stem and conv, columns of conv and mixed, the norm's vectors.
        "parameters": (8 * 3 + 8) + (8 * 8 * 9 + 8) + 6 * 8 + 2 * 8,
        "layers": {"produced": ["stem", "convs.0"], "consumed": ["convs.0", "mixed"], "tied": ["norm"]},
    }
    frozen = {(one["tensor"], one["dim"]): one["reason"] for one in told["frozen"]}
    assert set(frozen) == {("mixed.weight", 0), ("head.weight", 0)}
    assert "aten.cumsum" in frozen["mixed.weight", 0]
    assert "output of the model" in frozen["head.weight", 0]


def test_the_table_says_the_same_in_words(call, small):
    out = call("graph", *small).out
    assert out.startswith("small: 1 group of 8 units, ")
    assert "made by stem, convs.0; read by convs.0, mixed; with norm" in " ".join(out.split())
    assert "aten.cumsum" in next(line for line in out.splitlines() if line.startswith("mixed.weight"))


def test_branches_are_listed_with_what_goes_and_why_others_stay(call, small):
    told = json.loads(call("graph", *small, "--json").out)
    [branch] = told["branches"]
    assert (branch["name"], branch["layers"], branch["reason"]) == ("convs.0", ["convs.0"], "")
    assert branch["parameters"] == 8 * 8 * 9 + 8
    lines = call("graph", *small).out.splitlines()
    assert ["convs.0", "584", "convs.0"] in [line.split() for line in lines]


def test_the_table_shortens_long_lists_of_layers(call, small):
    out = " ".join(call("graph", *small, "--set", "model.options.depth=5").out.split())
    assert "made by stem, convs.0, convs.1 and 3 more; read by" in out


def test_heads_are_told_from_channels(call, small):
    factory = ["model.path=vit.py", "model.factory=Attention", "model.options={}", "data.shape=[5, 16]"]
    Path("vit.py").write_text(ATTENTION)
    got = call("graph", *small, "--json", *(word for one in factory for word in ("--set", one)))
    assert got.code == 0, got.err
    heads = [one for one in json.loads(got.out)["groups"] if one["kind"] == "heads"]
    assert [one["units"] for one in heads] == [4]


def test_a_model_that_cannot_be_traced_is_refused_with_the_reason(call, small):
    changes = [
        "model.factory=Branching",
        "model.options={in_features = 3, out_features = 3}",
        "data.shape=[3]",
    ]
    got = call("graph", *small, *(word for one in changes for word in ("--set", one)))
    assert got.code == 3, got.err
    assert "Traceback" not in got.err
    assert "error: " in got.err


def test_a_recipe_without_a_model_is_refused(call, here):
    (here / "r.toml").write_text('[[pass]]\nuse = "prune.channels"\namount = 0.5\n')
    got = call("graph", "r.toml")
    assert got.code == 2
    assert "[model]" in got.err
