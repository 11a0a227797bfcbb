"""`python`: a model made by a function in a local Python file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import Field

from demiglace.errors import SourceError
from demiglace.passes import Config, ModelSource, allowed_file
from demiglace.recipe import did_you_mean

if TYPE_CHECKING:
    from torch import nn


class PythonConfig(Config):
    """A function in a local Python file makes the model; runs only under `--allow-code PATH`."""

    path: Annotated[str, Field(min_length=1)]
    """Python file, relative to where demiglace is started."""
    factory: Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]
    """Name of a function or class in the file; called with `options`, it returns a `torch.nn.Module`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory."""

    def words(self) -> str:
        return f"{self.factory} of {self.path}"


class PythonSource(ModelSource[PythonConfig]):
    """Calls the factory."""

    def build(self) -> nn.Module:
        from torch import nn

        file = allowed_file(self.config.path)
        if not file.is_file():
            raise SourceError(
                f"python: there is no file {self.config.path}",
                hint="`path` is relative to where demiglace is started",
            )
        module = _guarded(file, lambda: _loaded(file))
        factory = getattr(module, self.config.factory, None)
        if not callable(factory):
            known = [name for name, value in vars(module).items() if callable(value)]
            raise SourceError(
                f"python: {file} has no function {self.config.factory!r}",
                hint=did_you_mean(self.config.factory, known),
            )
        model = _guarded(file, lambda: factory(**self.config.options))
        if not isinstance(model, nn.Module):
            raise SourceError(
                f"python: {self.config.factory} in {file} gives a {type(model).__name__}",
                hint="return a torch.nn.Module",
            )
        return model


class _ThatFileOnly(SourceFileLoader):
    """Compiles the file's own text, never a cached bytecode file that lies beside it."""

    def path_stats(self, path: str) -> NoReturn:
        raise OSError("without a time of change there is no bytecode cache")


def _loaded(file: Path) -> ModuleType:
    """The file's module, registered so that dataclasses and the like in it work."""
    name = f"demiglace_local_{file.stem}"
    spec = spec_from_loader(name, _ThatFileOnly(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"no module spec for {file}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _guarded(file: Path, call: Callable[[], Any]) -> Any:
    """The call's result; what the user's code raises names its own line."""
    try:
        return call()
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        raise SourceError(
            f"python: {place}: {type(error).__name__}: {error}", hint="correct the file or `options`"
        ) from error
