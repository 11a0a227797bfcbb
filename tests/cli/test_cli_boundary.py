import json
import os
import signal
import subprocess
import sys

import pytest

from demiglace.cli import boundary
from demiglace.errors import PassFailed

WRONG = """name = "wrong"

[[pass]]
use = "prune.magnitud"

[[pass]]
use = "prune.magnitude"
amount = 7
"""


@pytest.fixture
def wrong(here):
    (here / "wrong.toml").write_text(WRONG)
    return "wrong.toml"


def test_faults_go_to_stderr_with_places_and_nothing_to_stdout(call, wrong):
    got = call("check", wrong)
    assert (got.code, got.out) == (2, "")
    assert got.err.count("error: ") == 2
    assert "wrong.toml:4:7: " in got.err
    assert "prune.magnitude" in got.err
    assert "wrong.toml:8:10: " in got.err
    assert "^" in got.err


def test_json_gives_the_same_faults_on_stdout(call, wrong):
    got = call("check", wrong, "--json")
    errors = json.loads(got.out)["errors"]
    assert got.code == 2
    assert [error["place"]["line"] for error in errors] == [4, 8]
    assert errors[0]["place"] == {"file": "wrong.toml", "line": 4, "column": 7}
    assert "prune.magnitude" in errors[0]["hint"]


def test_a_misspelt_command_gets_the_nearest(call):
    got = call("chek", "x.toml")
    assert got.code == 2
    assert "No such command 'chek'. Did you mean 'check'?" in got.err


def test_a_misspelt_option_gets_the_nearest(call):
    got = call("check", "x.toml", "--jso")
    assert got.code == 2
    assert "--json" in got.err


def test_without_a_command_there_is_the_help(call):
    got = call()
    assert (got.code, got.err) == (0, "")
    assert got.out == call("--help").out


def test_a_stream_that_cannot_show_a_character_is_no_error(spawn, here):
    (here / "café.toml").write_text("x")
    assert spawn("check", "café.toml", PYTHONIOENCODING="ascii").returncode == 2


def test_a_missing_argument_is_a_usage_error(call):
    got = call("check")
    assert got.code == 2
    assert "RECIPE" in got.err


def test_an_absent_file_is_one_error_without_traceback(call):
    got = call("check", "no-such-recipe.toml")
    assert got.code == 2
    assert got.err.startswith("error: ")
    assert "no-such-recipe.toml" in got.err
    assert "Traceback" not in got.err


def test_an_unknown_shipped_recipe_gets_the_nearest(call):
    got = call("check", "recipe:digit")
    assert got.code == 2
    assert "digits" in got.err


def raising(error):
    def invoked(arguments):
        raise error

    return invoked


def test_an_unexpected_exception_keeps_its_traceback_and_exits_4(call, monkeypatch):
    monkeypatch.setattr(boundary, "_invoked", raising(ValueError("odd")))
    got = call("plugins", "--json")
    assert got.code == 4
    assert "Traceback" in got.err
    assert "ValueError: odd" in got.err
    assert "report" in got.err
    assert json.loads(got.out)["errors"][0]["message"] == "ValueError: odd"


def test_what_a_pass_raised_keeps_its_traceback(call, monkeypatch):
    error = PassFailed("ValueError: odd", step="prune", plugin="acme 1.0")
    error.__cause__ = ValueError("odd")
    monkeypatch.setattr(boundary, "_invoked", raising(error))
    got = call("plugins")
    assert got.code == 3
    assert "ValueError: odd\nerror: step 'prune' (from acme 1.0)" in got.err


def test_ctrl_c_exits_130(call, monkeypatch):
    monkeypatch.setattr(boundary, "_invoked", raising(KeyboardInterrupt()))
    got = call("plugins")
    assert got.code == 130
    assert "Traceback" not in got.err


def test_a_reader_that_goes_away_leaves_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "demiglace", "schema"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert process.stderr == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_no_colour_where_no_terminal_is(spawn):
    got = spawn("check", "no-such-recipe.toml")
    assert "\x1b" not in got.stderr
    assert got.returncode == 2
    assert got.stdout == ""
