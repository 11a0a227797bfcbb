"""Comparing a file with the PyTorch model that it was made of, on real inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demiglace.calibration import undisturbed
from demiglace.data import Batch, leaves
from demiglace.errors import GraphError
from demiglace_exporters._departure import first_departure
from demiglace_exporters._subject import first

if TYPE_CHECKING:
    from torch import nn

    from demiglace_exporters._file import FileExporter
    from demiglace_exporters._subject import Subject
    from demiglace_exporters.translation import Translated

_TOLERANCES = {"full": 1e-3, "half": 0.01, "integer weights": 0.01, "integers": 0.1}


@dataclass
class Comparison:
    """A file and the model that it must agree with."""

    exporter: FileExporter[Any]
    translated: Translated
    subject: Subject
    #: A folder to work in.
    folder: Path
    #: The only batch size that the model takes, if it does not take any.
    only_batch: int | None
    #: How many examples were compared.
    examples: int = field(default=0, init=False)

    @property
    def tolerance(self) -> float:
        """How far the outputs may be apart, as a share of their size."""
        chosen: float | None = self.exporter.config.tolerance
        return chosen or _TOLERANCES[self.translated.precision]

    def difference(self, path: Path) -> float:
        """How far the outputs are apart at most.

        Raises:
            GraphError: when that is beyond the tolerance; it names the first layer that departs.
        """
        worst = 0.0
        file = self.exporter.open(path)
        with undisturbed(self.subject.model.module):
            for batch in self._batches():
                self.examples += len(batch)
                apart = distance(batch.run(self.subject.model.module), self._run(file, batch))
                worst = max(worst, apart)
                if not apart <= self.tolerance:
                    raise self._departs(apart, batch)
        return worst

    def _batches(self) -> Iterator[Batch]:
        """The batches, and one example alone, in sizes that the file takes."""
        fixed = self.only_batch
        for number, batch in enumerate(self.subject.batches):
            if fixed is not None:
                yield from [first(batch, fixed)] if len(batch) >= fixed else []
                continue
            yield batch
            if number == 0 and len(batch) > 1:
                yield first(batch, 1)

    def _run(self, file: nn.Module, batch: Batch) -> Any:
        return batch.to("cpu").run(file)

    def _departs(self, apart: float, batch: Batch) -> GraphError:
        found = first_departure(self.exporter, self.translated, batch, self.folder, self.tolerance)
        where = (
            "each layer alone agrees"
            if found is None
            else f"layer {found or '.'!r} is the first that departs"
        )
        return GraphError(
            f"the file's outputs are {apart:.3g} of their size away from PyTorch's, over the tolerance "
            f"{self.tolerance:g}; {where}",
            hint="keep that layer in floating point by `ignore`, or allow more by `tolerance`",
        )


def distance(expected: Any, found: Any) -> float:
    """How far outputs are apart, as a share of the size of those expected; infinite for other shapes or NaN.

    Of whole numbers, the share that differs.
    """
    wanted = [one for one in leaves(expected) if isinstance(one, Tensor)]
    got = [one for one in leaves(found) if isinstance(one, Tensor)]
    if [one.shape for one in wanted] != [one.shape for one in got]:
        return math.inf
    return max((_apart(a.detach().cpu(), b) for a, b in zip(wanted, got, strict=True)), default=0.0)


def _apart(expected: Tensor, found: Tensor) -> float:
    if not expected.is_floating_point():
        return float((expected != found).double().mean())
    error = float((found.double() - expected.double()).norm())
    if math.isnan(error):
        return math.inf
    return (
        0.0 if error == 0 else error / max(float(expected.double().norm()), torch.finfo(torch.float64).tiny)
    )
