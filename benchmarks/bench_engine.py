"""What the engine itself costs in the digits pipeline, and how long the pipeline takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median


def main() -> None:
    """Print medians of three runs: wall-clock seconds, processor seconds, and the engine's own."""
    records = [_record() for _ in range(3)]
    for name in ("seconds", "cpu_seconds", "engine_cpu_seconds"):
        print(f"digits pipeline, {name.replace('_', ' ')}: {median(record[name] for record in records):.2f}")


def _record() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "demiglace", "run", "recipe:digits", "--quiet", "--out", str(out)]
        subprocess.run(command, check=True)
        record: dict[str, float] = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return record


if __name__ == "__main__":
    main()
