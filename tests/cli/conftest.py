"""Calling the command line from tests, in this process and in one of its own."""

import os
import subprocess
import sys

import pytest

from demiglace.cli import main


class Called:
    """What a call in this process gave."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys):
    """Call the command line in this process."""

    def called(*arguments):
        capsys.readouterr()
        code = main([str(one) for one in arguments])
        return Called(code, *capsys.readouterr())

    return called


@pytest.fixture
def spawn():
    """Call the command line in a process of its own; keyword arguments are environment variables."""

    def spawned(*arguments, **environment):
        command = [sys.executable, "-m", "demiglace", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | environment, check=False, timeout=120
        )

    return spawned


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
