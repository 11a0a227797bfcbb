import json
import os
import signal
import subprocess
import sys
import time

import pytest

RECIPE = """
name = "tiny run"

[model]
use = "mlp"
widths = [12, 8, 3]

[data]
use = "fake"
shape = [12]
classes = 3

[[pass]]
use = "prune.magnitude"
amount = 0.5
"""
TRAINING = RECIPE + '[[pass]]\nuse = "train.supervised"\nepochs = 100000\n'


@pytest.fixture
def recipe(here):
    (here / "r.toml").write_text(RECIPE)
    return "r.toml"


def test_plan_says_the_amount_in_words(call, recipe):
    got = call("plan", recipe)
    assert got.code == 0
    assert "50 %" in got.out
    assert json.loads(call("plan", recipe, "--json").out)["steps"][0]["use"] == "prune.magnitude"
    assert call("plan", recipe, "--quiet").out == ""


def test_a_run_tells_its_summary_on_stdout_and_its_progress_on_stderr(call, recipe, here):
    got = call("run", recipe, "--out", "done")
    assert got.code == 0
    assert "50.0 %" in got.out
    assert "demiglace.load('done')" in got.out
    assert "[1/1] magnitude" in got.err
    assert "[1/1]" not in got.out
    assert json.loads((here / "done" / "run.json").read_text())["status"] == "done"


def test_json_is_all_of_stdout(call, recipe):
    told = json.loads(call("run", recipe, "--out", "done", "--json").out)
    assert told["status"] == "done"
    assert told["path"] == "done"


def test_quiet_says_nothing(call, recipe):
    got = call("run", recipe, "--out", "done", "--quiet")
    assert (got.code, got.out, got.err) == (0, "", "")


def test_without_out_each_run_has_a_directory_of_its_own(call, recipe, here):
    call("run", recipe, "--quiet")
    call("run", recipe, "--quiet")
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["tiny-run", "tiny-run-2"]


def test_set_changes_the_recipe_and_is_checked(call, recipe):
    assert "20 %" in call("plan", recipe, "--set", "magnitude.amount=0.2").out
    got = call("plan", recipe, "--set", "magnitude.amount=2")
    assert got.code == 2
    assert "--set" in got.err


def test_a_missed_gate_exits_1(call, recipe, here):
    (here / "r.toml").write_text(RECIPE + "[gate]\nsparsity = { min = 0.9 }\n")
    got = call("run", recipe, "--out", "done")
    assert got.code == 1
    assert "MISSED" in got.out


def test_a_directory_that_is_not_empty_is_left_alone(call, recipe, here):
    (here / "done").mkdir()
    (here / "done" / "mine").write_text("mine")
    got = call("run", recipe, "--out", "done")
    assert got.code == 2
    assert [path.name for path in (here / "done").iterdir()] == ["mine"]


def test_local_code_runs_only_when_the_command_line_says_so(call, here):
    (here / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(12, 3)\n")
    source = 'use = "python"\npath = "net.py"\nfactory = "net"\n'
    text = RECIPE.replace('use = "mlp"\nwidths = [12, 8, 3]\n', source)
    (here / "r.toml").write_text(text)
    refused = call("plan", "r.toml")
    assert refused.code == 2
    assert "--allow-code net.py" in refused.err
    assert call("plan", "r.toml", "--allow-code", "net.py").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_leaves_it_consistent(here, number, code):
    (here / "r.toml").write_text(TRAINING)
    command = [sys.executable, "-m", "demiglace", "run", "r.toml", "--out", "done"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    lines = iter(process.stderr.readline, "")
    assert any("[2/2]" in line for line in lines)
    time.sleep(0.5)
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert json.loads((here / "done" / "run.json").read_text())["status"] == "interrupted"
