"""What the engine hands to a pass at work besides the model: seed, data, device, and a way to report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from demiglace.data import Batch, Data
    from demiglace.graph import ModelGraph

T = TypeVar("T")

LossStep: TypeAlias = "Callable[[nn.Module, Batch], Tensor]"
"""The scalar loss of a module on a batch: the function calls the module itself."""


def _nothing(*_: object) -> None:
    """The default of every callback."""


@dataclass(frozen=True)
class Asked:
    """A figure that a pass promises to reach; the engine measures it after the step."""

    #: `zeros` (a count of weights), `parameters` (a count) or `macs` (a count).
    figure: str
    value: float
    #: How far the measured figure may be from `value`, in the figure's unit.
    tolerance: float = 0.0
    #: Parameter names that the figure is measured over; empty: the whole model.
    over: tuple[str, ...] = ()


@dataclass
class Control:
    """The model as it was before the first step that compressed it, trained since as that was."""

    model: ModelGraph
    #: Its own of what steps leave for later ones, such as its optimizer's state.
    carry: dict[str, Any]


@dataclass
class Context:
    """The surroundings of one step. A pass sees these and its model, and nothing else."""

    #: Derived from the recipe's seed and the step's id.
    seed: int
    device: torch.device
    data: Data | None = None
    teacher: Callable[[], ModelGraph] | None = None
    #: The model before the first editor since the last training, for a step whose contract needs it.
    original: ModelGraph | None = None
    #: The model before the first pass, for a step whose contract wants it.
    baseline: ModelGraph | None = None
    #: A caller's own loss of a batch, in place of a trainer's.
    step: LossStep | None = None
    #: The uncompressed model, where this step or a later one wants it: a trainer trains it too, without
    #: participants, and the engine evaluates both.
    control: Control | None = None
    #: The run directory's folder for this step, which an exporter finds made and a trainer makes itself.
    folder: Path | None = None
    #: A checkpoint of this very training, from which it goes on.
    resume: Path | None = None
    #: The run's recipe and environment, and how many parameters the model had before its first step: plain
    #: JSON, for files that leave the run directory.
    provenance: Mapping[str, Any] = field(default_factory=dict)
    #: `(done, total or None, text)`.
    on_progress: Callable[[int, int | None, str], None] = _nothing
    on_warning: Callable[[str], None] = _nothing
    #: Raises `Interrupted` when the run was asked to stop; call it at least once per batch.
    check_interrupt: Callable[[], None] = _nothing
    #: What a step leaves for later ones beside the model, such as an optimizer's state: tensors and JSON.
    carry: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)
    #: What a pass found out on the way, plain JSON for `run.json`.
    figures: dict[str, object] = field(default_factory=dict)
    #: What a person should read of it at the end of the run, a line each.
    notes: list[str] = field(default_factory=list)

    def rng(self) -> torch.Generator:
        """A fresh CPU generator at this step's seed: the only randomness that a pass may use."""
        import torch

        return torch.Generator().manual_seed(self.seed)

    def warn(self, message: str) -> None:
        """Report something that the user should know; goes to stderr and `run.json`."""
        self.on_warning(message)

    def leave_alone(self, name: str, reason: str) -> None:
        """Report a layer or parameter that was selected and yet not changed, and why."""
        self.left_alone[name] = reason

    def note(self, text: str) -> None:
        """Say something to a person at the end of the run; goes to the summary and `run.json`."""
        self.notes.append(text)

    def ask(self, asked: Asked) -> None:
        """Promise a figure; a step that misses it fails."""
        self.asked.append(asked)

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """Yield from `items` with progress shown and interrupts honoured between two of them."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        for done, item in enumerate(items):
            self.check_interrupt()
            self.on_progress(done, total, text)
            yield item
        self.on_progress(total or 0, total, text)
