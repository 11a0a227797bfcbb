"""C++ that is compiled where it runs, by the compiler that torch.compile calls, and then kept."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from demiglace.machine.compiler import compiler

_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-shared", "-fPIC", "-fopenmp")
_SECONDS = 120  # for the compiler


def native_library(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """A shared library made of one file of C++, compiled if this version of it was not before.

    It lies in `demiglace` in the user's folder for caches, under the digest of all that it was made of.

    Args:
        source: the file.
        flags: of the compiler, beside those for a shared library with OpenMP: what processor it is for.

    Raises:
        OSError: there is no compiler, it refuses the file, or nothing can be written or loaded.
    """
    found = compiler()
    if found is None:
        raise FileNotFoundError("there is no C++ compiler")
    command = [found, *_FLAGS, *flags, str(source)]
    made_of = "\0".join([found, *_FLAGS, *flags]).encode() + source.read_bytes()
    library = _folder() / f"{source.stem}-{hashlib.sha256(made_of).hexdigest()[:32]}.so"
    if not library.exists():
        _compile(command, library)
    return ctypes.CDLL(str(library))


def _folder() -> Path:
    """The user's own folder, which nobody else may write to: what lies there is run."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(root):
        raise FileNotFoundError("the user has no folder for caches: name one in XDG_CACHE_HOME")
    folder = Path(root, "demiglace")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = folder.stat()
    if told.st_uid != os.getuid() or told.st_mode & 0o022:
        raise PermissionError(f"others can write to {folder}")
    return folder


def _compile(command: Sequence[str], library: Path) -> None:
    """Let the compiler write beside the place, and move the whole file there."""
    with NamedTemporaryFile(dir=library.parent, suffix=".so", delete=False) as fresh:
        path = Path(fresh.name)
    try:
        done = subprocess.run(  # noqa: S603 - the compiler that the user named, on a file of this package
            [*command, "-o", str(path)], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        if done.returncode:
            raise OSError(f"{command[0]} refuses it: {done.stderr.strip().partition(chr(10))[0]}")
        path.replace(library)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} takes more than {_SECONDS} seconds") from error
    finally:
        path.unlink(missing_ok=True)
