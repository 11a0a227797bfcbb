"""Files and folders appear whole or not at all, and what killed writers leave is swept."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demiglace.artifact import atomic
from demiglace.errors import ArtifactError

KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from demiglace.artifact.atomic import new_directory
with new_directory(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fail_with(number):
    def failing(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return failing


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_never_holds_a_bare_nan(value):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(atomic.to_json(value), parse_constant=refuse)


def test_numbers_that_json_lacks_are_named():
    assert json.loads(atomic.to_json([math.nan, math.inf, -math.inf])) == ["NaN", "Infinity", "-Infinity"]


def test_a_text_is_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "run.json"
    atomic.write_json(path, {"first": 1})
    atomic.write_json(path, {"second": 2})
    assert json.loads(path.read_text()) == {"second": 2}
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_keeps_the_old_text_and_says_why(tmp_path, monkeypatch, number):
    path = tmp_path / "run.json"
    atomic.write_text(path, "old")
    monkeypatch.setattr(os, "fsync", fail_with(number))
    with pytest.raises(ArtifactError, match=os.strerror(number)) as caught:
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]
    assert ("free some space" in str(caught.value)) == (number != errno.EIO)


def test_writing_into_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ArtifactError, match="cannot write"):
        atomic.write_text(tmp_path / "absent" / "run.json", "text")


def test_a_folder_replaces_the_one_that_was_there(tmp_path):
    target = tmp_path / "model"
    for text in ("old", "new"):
        with atomic.new_directory(target) as folder:
            (folder / text).write_text(text)
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_block_that_raises_leaves_the_old_folder(tmp_path):
    target = tmp_path / "model"
    with atomic.new_directory(target) as folder:
        (folder / "old").touch()
    with suppress(KeyboardInterrupt), atomic.new_directory(target) as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    with atomic.new_directory(target) as folder:
        (folder / "old").touch()
    rename = os.rename

    def failing(source, goal):
        if ".new-" in str(source):
            raise OSError(errno.EIO, "no")
        rename(source, goal)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"), atomic.new_directory(target) as folder:
        (folder / "new").touch()
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path):
    target = tmp_path / "model[1]"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    assert not target.exists()
    with atomic.new_directory(target) as folder:
        (folder / "whole").touch()
    assert os.listdir(tmp_path) == ["model[1]"]


def test_what_a_living_writer_writes_is_not_swept(tmp_path):
    target = tmp_path / "model"
    with atomic.new_directory(target) as folder:
        (folder / "first").touch()
        atomic.sweep(target)
        assert (folder / "first").exists()
    assert os.listdir(target) == ["first"]


def test_a_writer_killed_between_two_renames_loses_nothing(tmp_path):
    target = tmp_path / "model"
    moved = tmp_path / ".model.old-0123"
    moved.mkdir()
    (moved / "old").touch()
    atomic.sweep(target)
    assert os.listdir(target) == ["old"]


def test_writers_at_once_leave_one_whole_folder(tmp_path):
    target = tmp_path / "model"

    def write(number):
        for _ in range(10):
            with atomic.new_directory(target) as folder:
                for name in ("a", "b"):
                    (folder / name).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert (target / "a").read_text() == (target / "b").read_text()
    assert os.listdir(tmp_path) == ["model"]


def test_folders_keep_the_permissions_that_the_user_asked_for(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic.new_directory(tmp_path / "model"):
            pass
    finally:
        os.umask(old)
    assert Path(tmp_path / "model").stat().st_mode & 0o777 == 0o750
