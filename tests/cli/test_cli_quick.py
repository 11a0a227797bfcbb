"""`demiglace quick` from the goal to the result."""

import json
import re

import pytest
import torch

import demiglace
from demiglace.report.units import data_size

NET = """
import torch
from torch import nn

def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
"""
DATA = ("--data", "fake", "--set", "data.shape=[16]", "--set", "data.classes=3")


@pytest.fixture
def net(here):
    (here / "net.py").write_text(NET)
    return "net.py:make_net"


def test_a_model_of_ones_own_becomes_a_recipe_and_a_result(call, net, here):
    got = call("quick", net, "--goal", "3x smaller", "--allow-code", "net.py", *DATA)
    assert got.code == 0, got.err
    assert "goal met: 3x smaller" in got.out
    [file] = (here / "runs/quick/steps").glob("*/model.dgz")
    size = file.stat().st_size
    assert f"model.dgz: {data_size(size)}, " in got.out
    text = (here / "quick.toml").read_text()
    assert text.startswith("#:schema ./recipe.schema.json\n# Written by")
    assert 'use = "quantize.weight_only"' in text
    assert call("check", "quick.toml").code == 0
    model = demiglace.load("runs/quick", allow_code=["net.py"])
    assert model(torch.rand(2, 16)).shape == (2, 3)


def test_the_recipe_that_was_written_runs_again_to_the_same_model(call, net, here):
    call("quick", net, "--goal", "3x smaller", "--allow-code", "net.py", "--out", "one", *DATA)
    assert call("run", "quick.toml", "--allow-code", "net.py", "--out", "two").code == 0
    one, two = (
        json.loads((here / name / "run.json").read_text())["steps"][-1]["output"] for name in ("one", "two")
    )
    assert one == two


def test_a_time_is_measured_in_the_run(call, net, here):
    got = call("quick", net, "--goal", "1.2x faster", "--allow-code", "net.py", *DATA)
    assert got.code in {0, 1}, got.err  # whichever: it is a time
    assert re.search(r"goal (met|MISSED): 1\.2x faster: \d+\.\d\dx", got.out)
    record = json.loads((here / "runs/quick/run.json").read_text())
    [gate] = record["gates"]
    assert gate["metric"].startswith("speedup_")
    assert (
        gate["value"]
        == next(s for s in record["steps"] if s["id"] == "time")["metrics"][gate["metric"]]["value"]
    )
    assert "quantize.dynamic" in (here / "quick.toml").read_text()


def test_code_is_not_run_without_leave(call, net, here):
    got = call("quick", net, "--goal", "3x smaller", *DATA)
    assert got.code == 2
    assert "--allow-code net.py" in got.err
    assert not (here / "quick.toml").exists()


def test_a_recipe_that_is_there_is_kept_unless_told(call, net, here):
    (here / "quick.toml").write_text("mine")
    given = ("quick", net, "--goal", "3x smaller", "--allow-code", "net.py", *DATA)
    got = call(*given)
    assert got.code == 2
    assert "quick.toml exists" in got.err
    assert (here / "quick.toml").read_text() == "mine"
    assert not (here / "runs").exists()
    assert call(*given, "--force").code == 0
    assert call(*given, "--recipe", "other.toml").code == 0


def test_a_missed_goal_says_by_how_much_and_exits_1(call, net):
    set_small = ("--set", "data.train=64", "--set", "data.batch_size=64")
    got = call("quick", net, "--goal", "200x smaller", "--allow-code", "net.py", *DATA, *set_small)
    assert got.code == 1
    missed = next(line for line in got.out.splitlines() if line.startswith("goal MISSED"))
    assert "% too large" in missed


def test_json_tells_the_goal_too(call, net):
    got = call("quick", net, "--goal", "3x smaller", "--allow-code", "net.py", "--json", *DATA)
    told = json.loads(got.out)
    [bound] = told["goal"]
    assert bound["asked"] == "3x smaller"
    assert bound["met"] is True
    assert bound["reached"] == pytest.approx(told["original"]["bytes"] / told["steps"][-1]["after"]["bytes"])


def test_an_artifact_is_a_start_and_needs_no_data(call, net):
    call("quick", net, "--goal", "1.5x fewer macs", "--allow-code", "net.py", "--out", "first", *DATA)
    given = ("--allow-code", "net.py", "--recipe", "second.toml", "--out", "second")
    got = call("quick", "first", "--goal", "3x smaller", *given)
    assert got.code == 0, got.err
    assert "goal met: 3x smaller" in got.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--goal", "3x smaller, <= 1 point"), "no examples labelled"),
        (("--goal", "3x smaler"), "--goal:1:1"),
        (("--goal", "3x smaller", "--data", "nothing"), "neither a source of data"),
        (("--goal", "3x smaller", "--set", "dense.epochs=3"), "no pass and no table dense"),
        (("--goal", "3x smaller", "--set", "data.shape=[5]", "--data", "fake"), "does not take the data"),
    ],
)
def test_what_cannot_be_is_one_error_before_anything_is_written(call, net, here, arguments, message):
    got = call("quick", net, "--allow-code", "net.py", *arguments)
    assert got.code == 2
    assert message in got.err
    assert "Traceback" not in got.err
    assert not (here / "quick.toml").exists()


def test_a_model_that_is_quantized_already_is_refused(call, net):
    call("quick", net, "--goal", "3x smaller", "--allow-code", "net.py", "--out", "first", *DATA)
    given = ("--allow-code", "net.py", "--recipe", "second.toml")
    got = call("quick", "first", "--goal", "2x smaller", *given)
    assert got.code == 2
    assert "start from the floating-point model" in got.err
