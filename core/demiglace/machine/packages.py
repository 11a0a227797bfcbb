"""Installed packages."""

from __future__ import annotations

from importlib import metadata


def version(distribution: str) -> str | None:
    """The version of an installed distribution; `None` when it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
