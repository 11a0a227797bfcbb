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
    from demiglace.api import check as check
    from demiglace.api import load as load
    from demiglace.api import participants as participants
    from demiglace.api import plan as plan
    from demiglace.api import run as run
    from demiglace.engine.result import Result as Result
    from demiglace.errors import DemiglaceError as DemiglaceError
    from demiglace.plugins.hooks import hookimpl as hookimpl
    from demiglace.recipe import Recipe as Recipe

__version__ = "0.1.0"

_HOMES = {
    "DemiglaceError": "demiglace.errors",
    "Recipe": "demiglace.recipe",
    "Result": "demiglace.engine.result",
    "check": "demiglace.api",
    "hookimpl": "demiglace.plugins.hooks",
    "load": "demiglace.api",
    "participants": "demiglace.api",
    "plan": "demiglace.api",
    "run": "demiglace.api",
}

__all__ = [
    "DemiglaceError",
    "Recipe",
    "Result",
    "__version__",
    "check",
    "hookimpl",
    "load",
    "participants",
    "plan",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'demiglace' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
