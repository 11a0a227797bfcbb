"""What exporters have in common that write a file for a runtime: options, and the way to a checked file."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field

from demiglace.errors import UsageError
from demiglace.passes import Config, Context, Contract, Exporter, Problem, RuntimeSpec

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import ModelGraph
    from demiglace_exporters.translation import Translated


class FileConfig(Config):
    """Options of an exporter whose file a runtime runs."""

    preprocess: bool = False
    """Fold the data's transform into the file: it then takes images as the data holds them, of the size of
    the first, in 8 bits."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """How far the file's outputs may be from PyTorch's, as a share of their size. By default 0.001; 0.01 in
    16-bit floating point and with integer weights, since runtimes may round what meets them; 0.1 with
    integer arithmetic, where values in the middle of two integers fall to either side."""
    examples: Annotated[int, Field(ge=1)] = 16
    """Examples of the calibration split that both are compared on; without data, the example input."""

    def contract(self) -> Contract:
        examples = ("data.calibration",) if self.preprocess else ()
        return Contract.of(needs=("weights.exchangeable", *examples))


C = TypeVar("C", bound=FileConfig)


class FileExporter(Exporter[C]):
    """Translates a model, writes it beside its place, compares it with PyTorch, and then puts it there."""

    runtime: RuntimeSpec
    #: Whether the runtime is fast at layers that round their inputs as they come.
    dynamic = True

    @property
    @abstractmethod
    def files(self) -> Sequence[str]:
        """The names of the files, the one that is opened last."""

    @abstractmethod
    def save(self, translated: Translated, path: Path) -> None:
        """Write the files, `path` being the one that is opened."""

    @abstractmethod
    def open(self, path: Path) -> nn.Module:
        """The file as a module."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        needed = dict.fromkeys(["onnx", "onnxscript", *self.runtime.requires])
        missing = [name for name in needed if not _installed(name)]
        if missing:
            names = " and ".join(missing)
            yield Problem(f"{names} is not installed here", (), f'pip install "{self.runtime.install}"')

    def write(self, model: ModelGraph, folder: Path, context: Context) -> Mapping[str, object]:
        from demiglace.artifact import new_directory, writing
        from demiglace.training import refuse
        from demiglace_exporters._comparison import Comparison
        from demiglace_exporters._subject import Subject
        from demiglace_exporters.translation import translate

        refuse(self.preflight(model))
        self._refuse_existing(folder)
        subject = Subject.of(model, context, self.config)
        translated = translate(subject.model, dynamic=self.dynamic)
        only = translated.fixed_batch or subject.only_batch()
        if only is not None:
            context.warn(f"the model fixes its batch size: the file takes {only} at a time")
        target = folder / self.files[-1]
        with writing(target), new_directory(folder / f"{target.name}.d", keep=False) as fresh:
            self.save(translated, fresh / target.name)
            comparison = Comparison(self, translated, subject, fresh, only)
            difference = comparison.difference(fresh / target.name)
            for name in self.files:
                os.replace(fresh / name, folder / name)
        return {
            "file": target.name,
            "bytes": sum((folder / name).stat().st_size for name in self.files),
            "difference": difference,
            "tolerance": comparison.tolerance,
            "examples": comparison.examples,
            "free_batch": only is None,
        }

    def _refuse_existing(self, folder: Path) -> None:
        for name in self.files:
            if (folder / name).exists():
                raise UsageError(f"{folder / name} exists", hint="give another `file`, or remove it")


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
