"""The interface of each kind of pass. A plugin's class subclasses one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from demiglace.passes.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from demiglace.data import Split
    from demiglace.graph import Edit, ModelGraph
    from demiglace.passes.context import Context
    from demiglace.passes.metric import Metric
    from demiglace.passes.participant import Participant

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Problem:
    """Why a pass cannot work on a model, found before anything runs."""

    message: str
    #: The option at fault as a path into the pass's table, such as `("optimizer", "name")`.
    option: tuple[str | int, ...] = ()
    hint: str | None = None


class Pass(ABC, Generic[C]):
    """A pass with its validated options."""

    def __init__(self, config: C) -> None:
        self.config = config

    def preflight(self, model: ModelGraph) -> Iterable[Problem]:
        """What can be told to be wrong from the model's structure alone, before the first tensor moves.

        The model may be on the meta device: names, types and shapes are there, values are not.
        """
        return ()


class Editor(Pass[C]):
    """Changes a model by returning edits (pruner, quantizer, weight sharer).

    An editor is pure: it reads the model and returns plain-data edits; the engine applies, verifies,
    measures and stores them. With the same model, options and seed it returns the same edits.
    """

    @abstractmethod
    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterable[Edit]:
        """The edits that this pass makes.

        Args:
            model: the model as it is now; must not be changed.
            context: seed, data, device, and where to report what was left alone.
            amount: overrides the option `amount` (a share, 0 to 1), as a schedule does during training;
                `None` means the option itself.
        """

    def unscheduled(self) -> Problem | None:
        """Why a schedule cannot raise `amount` while a model trains; `None` where it can."""
        return None


class Trainer(Pass[C]):
    """Trains a model in place, with participants at work inside its loop."""

    @abstractmethod
    def train(
        self, model: ModelGraph, context: Context, participants: Sequence[Participant[Any]] = ()
    ) -> Mapping[str, object]:
        """Train `model.module` in place; return figures for `run.json` (plain JSON values)."""


class Evaluator(Pass[C]):
    """Measures a model without changing it."""

    @abstractmethod
    def measure(self, model: ModelGraph, context: Context) -> Mapping[str, Metric]:
        """The metrics by name. Must leave the model, its mode and its buffers as they were."""


class Exporter(Pass[C]):
    """Writes the model in another format."""

    @abstractmethod
    def write(self, model: ModelGraph, folder: Path, context: Context) -> Mapping[str, object]:
        """Write into `folder` (it exists and is empty); return figures for `run.json`."""


class ModelSource(Pass[C]):
    """Where a model comes from."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The structure only: no download, no seed, may run on the meta device."""

    def initialise(self, module: nn.Module) -> None:
        """Fetch or draw the weights; by default they stay as `build` drew them under the run's seed."""

    def open(self) -> ModelGraph:
        """The model with its weights, drawn under torch's current seed where they are drawn."""
        from demiglace.graph import ModelGraph

        module = self.build()
        self.initialise(module)
        return ModelGraph(module)

    def figures(self) -> Mapping[str, object]:
        """What is worth knowing of the model that `open` gave, for `run.json`; by default nothing."""
        return {}

    def structure(self) -> nn.Module:
        """The structure without values, on the meta device where `build` can run there."""
        import torch

        try:
            with torch.device("meta"):
                return self.build()
        except (NotImplementedError, RuntimeError):
            return self.build()

    def example_shape(self) -> Sequence[int] | None:
        """The shape of one input without its batch dimension, when the source knows it."""
        return None


class DataSource(Pass[C]):
    """Where a data set comes from."""

    @abstractmethod
    def splits(self) -> Mapping[str, Split]:
        """The splits by name: any of `train`, `calibration`, `validation`, `test`.

        A missing `validation` or `calibration` stays missing; the engine never substitutes `test`.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the data's content or of what pins it down (files, sizes, checksums, seed)."""
