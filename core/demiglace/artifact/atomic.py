"""Files and folders that appear whole or not at all.

A folder is written under a hidden name beside its target, synced, and renamed. A writer holds an
advisory lock on its hidden folder, which the kernel frees when the process dies: so what a killed
process left is told from what a living one is writing, and swept.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import Any

from demiglace.errors import ArtifactError

_NEW = ".new-"
_OLD = ".old-"


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON text in which NaN and the infinities are strings, because JSON has no numbers for them.

    Without `indent` it has no white space.
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(
        _finite(value), indent=indent, separators=separators, ensure_ascii=False, allow_nan=False
    )


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are made of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Replace a file by the JSON of `value`; see `write_text`."""
    write_text(path, to_json(value, indent=indent) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text` in UTF-8: at every moment the path holds the old text or the new one.

    Raises:
        ArtifactError: when the disk is full or the folder cannot be written; the old file stays.
    """
    with new_file(path) as file:
        file.write(text.encode())


@contextmanager
def new_file(path: Path) -> Iterator[BufferedRandom]:
    """Yield a file to write; when the block ends well it takes the place of `path`, whole.

    When the block raises, what was at `path` stays.

    Raises:
        ArtifactError: when the disk is full or the folder cannot be written.
    """
    with writing(path), new_directory(path.with_name(path.name + ".d"), keep=False) as folder:
        fresh = folder / path.name
        with fresh.open("w+b") as file:
            yield file
        _sync(fresh)
        os.replace(fresh, path)
        _sync(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into an `ArtifactError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        hint = "free some space on that disk" if full else "check that the folder exists and can be written"
        reason = error.strerror or str(error)
        raise ArtifactError(f"cannot write {path}: {reason}; nothing was left there", hint=hint) from error


@contextmanager
def new_directory(target: Path, *, keep: bool = True) -> Iterator[Path]:
    """Yield a hidden folder beside `target`; when the block ends well it becomes `target`, whole.

    A `target` that exists is replaced. When the block raises, the hidden folder goes and `target` stays
    as it was. With `keep=False` the folder is only a place to work in and never becomes `target`.
    """
    sweep(target)
    folder, lock = _locked_folder(target)
    try:
        yield folder
        if keep:
            for path in folder.rglob("*"):
                _sync(path)
            _sync(folder)
            _swap(folder, target)
    finally:
        os.close(lock)
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what killed writers of `target` left; put back a target that one had moved away."""
    for old in sorted(target.parent.glob(f".{_literal(target)}{_OLD}*")):
        if not target.exists():
            with suppress(OSError):
                os.rename(old, target)
        shutil.rmtree(old, ignore_errors=True)
    for folder in target.parent.glob(f".{_literal(target)}{_NEW}*"):
        _remove_unless_locked(folder)


def _literal(target: Path) -> str:
    """The target's name as a glob that matches only itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in target.name)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new hidden folder for `target` with a lock held on it: its path and the lock's descriptor."""
    while True:
        folder = target.with_name(f".{target.name}{_NEW}{secrets.token_hex(8)}")
        folder.mkdir()
        # Another process may sweep it before the lock is held.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_unless_locked(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _swap(folder: Path, target: Path) -> None:
    """Put `folder` in the place of `target`; what was there is removed afterwards."""
    while True:
        old = target.with_name(f".{target.name}{_OLD}{folder.name.rpartition('-')[2]}")
        with suppress(FileNotFoundError):
            os.rename(target, old)
        try:
            os.rename(folder, target)
        except OSError as error:
            # Another writer was faster: its folder is replaced in the next round.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                _put_back(old, target)
                raise
            shutil.rmtree(old, ignore_errors=True)
            continue
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        return


def _put_back(old: Path, target: Path) -> None:
    with suppress(OSError):
        os.rename(old, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
