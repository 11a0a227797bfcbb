"""The course of a training: mean loss terms and validation figures of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class History:
    """Collects loss terms batch by batch and closes them into an entry for each epoch."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: bool = False
    best_epoch: int | None = None
    _loss: float = 0.0
    _terms: dict[str, Tensor] = field(default_factory=dict)
    _batches: int = 0

    def add(self, loss: float, terms: Mapping[str, Tensor]) -> None:
        """Take in one batch; terms stay on their device until the epoch is closed."""
        self._batches += 1
        self._loss += loss
        if len(terms) < 2:  # a single term is the loss itself
            return
        for name, term in terms.items():
            value = term.detach()
            self._terms[name] = self._terms[name] + value if name in self._terms else value

    def close_epoch(self, epoch: int, step: int, figures: Mapping[str, float]) -> None:
        """Write the entry of an epoch with its validation figures, and start the next."""
        count = max(1, self._batches)
        entry: dict[str, Any] = {"epoch": epoch, "step": step, "loss": self._loss / count}
        entry |= {f"loss.{name}": float(total) / count for name, total in self._terms.items()}
        entry |= {f"validation.{name}": value for name, value in figures.items()}
        self.epochs.append(entry)
        self._loss, self._batches, self._terms = 0.0, 0, {}

    def state_dict(self) -> dict[str, Any]:
        """What was written down, at the end of an epoch."""
        return {"epochs": self.epochs, "stopped_early": self.stopped_early, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.epochs, self.best_epoch = list(state["epochs"]), state["best_epoch"]
        self.stopped_early = state["stopped_early"]

    def figures(self) -> dict[str, Any]:
        """Plain JSON values for `run.json`."""
        last = self.epochs[-1] if self.epochs else {}
        return {
            "epochs": last.get("epoch", 0),
            "steps": last.get("step", 0),
            "loss": last.get("loss"),
            "stopped_early": self.stopped_early,
            "best_epoch": self.best_epoch,
            "history": self.epochs,
        }
