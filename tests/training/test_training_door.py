"""Participants of another distribution, installed beside demiglace: a penalty and an edit, from a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import demiglace

SPECS = """
from typing import Annotated

import demiglace
from demiglace.passes import Config, Contract, Kind, PassSpec
from pydantic import Field


class QuietConfig(Config):
    '''Keep a layer's outputs small.'''

    layer: str
    '''Whose outputs.'''
    weight: Annotated[float, Field(gt=0)] = 0.1
    '''How much they count.'''

    def words(self):
        return f"keep the outputs of {self.layer} small"


class ThinConfig(Config):
    '''Take a unit off a perceptron's first layer after each epoch, and hold its last layer's first weight.'''

    def contract(self):
        return Contract.of(needs=("weights.float",), gives=("acme.thin",))


@demiglace.hookimpl
def demiglace_passes():
    return [
        PassSpec("acme.quiet", Kind.PARTICIPANT, QuietConfig, "acme_parts:Quiet"),
        PassSpec("acme.thin", Kind.PARTICIPANT, ThinConfig, "acme_parts:Thin"),
    ]
"""

CODE = """
import torch
from demiglace.graph import Cut, Mask, SetAttr
from demiglace.passes import Participant, Problem


class Quiet(Participant):
    def preflight(self, model):
        if self.config.layer not in dict(model.module.named_modules()):
            yield Problem(f"no layer {self.config.layer}", ("layer",))

    def prepare(self, loop):
        self.output = loop.capture(self.config.layer)
        self.scale = torch.nn.Parameter(torch.tensor(1.0))
        loop.train_also([self.scale])

    def loss(self, batch, outputs):
        return {"size": self.config.weight * self.scale.square() * self.output().square().mean()}


class Thin(Participant):
    def prepare(self, loop):
        self.loop, self.seen = loop, 0

    def after_epoch(self, at):
        units = self.loop.model.module.fc1.out_features
        kept = tuple(range(1, units))
        self.loop.apply([
            Cut("fc1.weight", 0, kept),
            Cut("fc1.bias", 0, kept),
            Cut("fc2.weight", 1, kept),
            SetAttr("fc1", "out_features", units - 1),
            SetAttr("fc2", "in_features", units - 1),
        ])

    def on_edit(self, edits):
        self.seen += len(edits)

    def finish(self):
        assert self.seen > 5, "the edits of others are heard of"
        keep = torch.ones(4, self.loop.model.module.fc2.in_features, dtype=torch.bool)
        keep[0, 0] = False
        yield Mask("fc2.weight", keep)
"""

RECIPE = """
name = "acme"
requires = ["acme-parts>=1"]

[model]
use = "mlp"
widths = [12, 8, 4]

[data]
use = "fake"
shape = [12]
classes = 4
train = 64
batch_size = 16

[[pass]]
id = "train"
use = "train.supervised"
epochs = 3
checkpoint = true

[[pass.with]]
id = "quiet"
use = "acme.quiet"
layer = "fc1"

[[pass.with]]
id = "thin"
use = "acme.thin"

[[pass.with]]
id = "prune"
use = "prune.magnitude"
amount = 0.5
targets = ["fc1"]
schedule = { end = 1.0 }
"""
CALLS = """
import json, sys
from demiglace.cli import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps(codes))
"""
"""Calls the command line several times, which imports torch once."""


@pytest.mark.slow
def test_a_second_distributions_participants_train_beside_ours(tmp_path):
    foreign = tmp_path / "foreign"
    info = foreign / "acme_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[demiglace]\nacme = acme_specs\n")
    (foreign / "acme_specs.py").write_text(SPECS)
    (foreign / "acme_parts.py").write_text(CODE)
    (tmp_path / "acme.toml").write_text(RECIPE)
    path = os.pathsep.join([str(foreign), *filter(None, [os.environ.get("PYTHONPATH")])])

    calls = [
        ["plan", "acme.toml"],
        ["plan", "acme.toml", "--set", "quiet.layer=fc7"],
        ["run", "acme.toml", "--out", "run"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(calls)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 2, 0], done.stderr
    assert "└ quiet  acme.quiet: keep the outputs of fc1 small" in done.stdout
    assert "no layer fc7" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    history = record["steps"][0]["figures"]["history"]
    assert history[-1]["loss.quiet.size"] < history[0]["loss.quiet.size"]
    # Without the other distribution: the edits are the core's.
    model = demiglace.load(tmp_path / "run")
    assert model.fc1.weight.shape == (5, 12)
    assert model.fc2.weight[0, 0] == 0
    # Half of 6 units' 72 weights, less those of the unit that went after the last epoch.
    assert 24 <= (model.fc1.weight == 0).sum() < 36
