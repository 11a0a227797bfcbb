"""What needs no tensor imports no torch."""

import subprocess
import sys

import pytest

PROBE = """
import sys
from demiglace.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "numpy", "rich"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["check", "recipe:digits"],
        ["schema"],
        ["plugins"],
        ["plugins", "--json"],
        ["describe", "prune.magnitude"],
        ["advise"],
        ["advise", "recipe:mlp-dynamic-int8"],
        ["init"],
    ],
    ids=" ".join,
)
def test_a_light_command_imports_nothing_heavy(arguments, here):
    process = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_help_imports_no_command_and_no_pydantic():
    code = (
        "import sys; from demiglace.cli import main; main(['--help']);"
        "sys.exit(str([m for m in sys.modules if 'cli.commands' in m or m == 'pydantic']))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stderr.strip() == "[]"


def test_the_list_of_commands_says_what_their_own_help_says():
    from importlib import import_module

    from demiglace.cli.group import COMMANDS

    for name in COMMANDS:
        command = import_module(f"demiglace.cli.commands.{name}").command
        assert command.name in {name, "command"}
        assert command.help
