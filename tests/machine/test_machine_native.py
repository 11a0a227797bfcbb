"""C++ that is compiled where it runs: once, in a folder that is the user's own."""

import ctypes

import pytest

from demiglace.machine import compiler, native_library

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "twice.cpp"
    file.write_text('extern "C" int twice(int x) { return FACTOR * x; }\n')
    return file


def files(tmp_path):
    return sorted(one.name for one in (tmp_path / "cache" / "demiglace").iterdir())


def test_what_was_compiled_once_is_loaded_again(source, tmp_path, monkeypatch):
    library = native_library(source, ["-DFACTOR=2"])
    assert isinstance(library, ctypes.CDLL)
    assert library.twice(21) == 42
    [made] = files(tmp_path)
    assert made.startswith("twice-")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("compiled again"))
    assert native_library(source, ["-DFACTOR=2"]).twice(4) == 8
    monkeypatch.undo()


def test_other_flags_and_another_source_are_another_library(source, tmp_path):
    assert native_library(source, ["-DFACTOR=2"]).twice(5) == 10
    assert native_library(source, ["-DFACTOR=3"]).twice(5) == 15
    source.write_text('extern "C" int twice(int x) { return 2 * x + 1; }\n')
    assert native_library(source, []).twice(5) == 11
    assert len(files(tmp_path)) == 3


def test_what_the_compiler_refuses_leaves_nothing(source, tmp_path):
    with pytest.raises(OSError, match="refuses it"):
        native_library(source, [])
    assert files(tmp_path) == []


def test_a_folder_that_others_can_write_to_is_not_used(source, tmp_path):
    folder = tmp_path / "cache" / "demiglace"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write"):
        native_library(source, ["-DFACTOR=2"])


def test_without_a_folder_for_caches_it_says_so(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(FileNotFoundError, match="no folder for caches"):
        native_library(source, ["-DFACTOR=2"])


def test_without_a_compiler_it_says_so(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(OSError, match="no C\\+\\+ compiler"):
        native_library(source, ["-DFACTOR=2"])
