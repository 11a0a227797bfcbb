"""The directory of one run: `run.json`, `run.log`, and the model as an artifact in `model/`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from demiglace.artifact.atomic import write_json
from demiglace.engine.events import Listener
from demiglace.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from demiglace.engine.record import RunRecord, StepRecord

MODEL = "model"
"""Name of the artifact's directory inside a run directory."""


class RunFolder(Listener):
    """Owns a new directory; every file in it appears whole, and the log is written line by line."""

    def __init__(self, path: Path) -> None:
        """Create the directory.

        Raises:
            UsageError: when it exists and is not empty, or cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UsageError(f"{path} exists and is not empty", hint="choose another --out, or remove it")
            self._log = (path / "run.log").open("x", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UsageError(
                f"cannot write a run into {path}: {error.strerror}", hint="choose another --out"
            ) from None

    @property
    def model(self) -> Path:
        """Where the compressed model's artifact goes."""
        return self.path / MODEL

    def step(self, number: int, step_id: str) -> Path:
        """The directory for what a step itself writes, not made yet."""
        return self.path / "steps" / f"{number:02d}-{step_id}"

    def write(self, record: RunRecord) -> None:
        """Replace `run.json`, whole or not at all."""
        write_json(self.path / "run.json", record.to_json())

    def log(self, text: str) -> None:
        """Add a line to `run.log`."""
        try:
            self._log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
        except OSError as error:
            hint = "make room, or choose another --out"
            raise ArtifactError(
                f"cannot write {self.path / 'run.log'}: {error.strerror}", hint=hint
            ) from None

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def step_started(self, step: str, index: int, total: int) -> None:
        self.log(f"step {index}/{total} {step}: started")

    def warning(self, step: str, text: str) -> None:
        self.log(f"step {step}: warning: {text}")

    def step_finished(self, step: str, record: StepRecord) -> None:
        metrics = ", ".join(f"{name} {metric.value:.6g}" for name, metric in record.metrics.items())
        self.log(f"step {step}: {record.status} in {record.seconds:.2f} s: {metrics}")
