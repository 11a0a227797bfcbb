"""demiglace: compress PyTorch models by recipe.

    import demiglace

    result = demiglace.run("recipe.toml", out="runs/first")
    model = demiglace.load(result.path)

Everything here is imported on first use, so that `import demiglace` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demiglace.errors import DemiglaceError as DemiglaceError
    from demiglace.plugins.hooks import hookimpl as hookimpl

__version__ = "0.1.0"

_HOMES = {
    "DemiglaceError": "demiglace.errors",
    "hookimpl": "demiglace.plugins.hooks",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'demiglace' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
