"""A file that appears whole or not at all, for what only takes a path to write to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demiglace.artifact import writing


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`; when the block ends well its file becomes `path`.

    Raises:
        ArtifactError: when the disk is full or the folder cannot be written.
    """
    fresh = path.with_name(f".new-{path.name}")
    try:
        with writing(path):
            yield fresh
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
