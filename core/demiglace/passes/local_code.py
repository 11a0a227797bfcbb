"""Local code: recipes are data, so Python files are loaded only from where the caller said.

The command line (`--allow-code PATH`) and `demiglace.run` open the door for one call with
`allowing_code`; whatever loads a file asks `allowed_file` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from demiglace.errors import UsageError

_ALLOWED: ContextVar[tuple[Path, ...]] = ContextVar("allowed_code", default=())
"""As the caller wrote them, made absolute where they are used."""


@contextmanager
def allowing_code(paths: Iterable[str | Path]) -> Iterator[None]:
    """Let code be loaded from these files, and from files in these folders, while the block runs."""
    token = _ALLOWED.set((*_ALLOWED.get(), *map(Path, paths)))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def allowed_code() -> tuple[Path, ...]:
    """The files and folders that are allowed now, as the caller wrote them."""
    return _ALLOWED.get()


def allowed_file(path: str | Path) -> Path:
    """The file, absolute and with symbolic links resolved, if code may be loaded from it.

    Raises:
        UsageError: when the caller did not allow it.
    """
    file = Path(path).resolve()
    if not any(allowed.resolve() in {file, *file.parents} for allowed in _ALLOWED.get()):
        raise UsageError(
            f"the recipe wants to run Python code from {path}",
            hint=f"if you trust that file, say so: --allow-code {path}",
        )
    return file
