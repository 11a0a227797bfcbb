"""The shipped recipes that end with the smallest file: bytes of it all, accuracy of what it decodes to.

Each file is opened in a process of its own, which evaluates it on the test digits. Prints one line a seed
and the means; returns 1 when a mean misses its bar (150 times smaller than the dense network's float32, 0.5
points lost).

    python benchmarks/bench_smallest.py                               # both, 5 seeds: ten minutes on one core
    python benchmarks/bench_smallest.py smallest-lenet-5 --seeds 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import demiglace

RECIPES = ("smallest-lenet-300-100", "smallest-lenet-5")
RATIO_BAR, LOSS_BAR = 150, 0.5
EVALUATED = """
import sys, torch, demiglace
from demiglace_sources.mnist5k import Mnist5kConfig, Mnist5kSource
test = Mnist5kSource(Mnist5kConfig(validation=0.0)).splits()["test"]
with torch.no_grad():
    right = demiglace.load(sys.argv[1])(test.inputs).argmax(1) == test.labels
print(100 * float(right.float().mean()))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    kept = []
    for name in options.recipes:
        rows = [measured(name, seed) for seed in range(options.seeds)]
        dense, decoded, size, ratio, seconds = (mean(column) for column in zip(*rows, strict=True))
        print(f"{name:24} mean of {len(rows)}: {line(dense, decoded, size, ratio, seconds)}")
        kept.append(ratio >= RATIO_BAR and dense - decoded <= LOSS_BAR)
    return 0 if all(kept) else 1


def measured(name: str, seed: int) -> tuple[float, float, float, float, float]:
    """Accuracy of the dense network and of the file in percent, bytes, times smaller, seconds of CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        result = demiglace.run(f"recipe:{name}", overrides=[f"seed={seed}"], out=Path(folder) / "run")
        seconds = time.process_time() - started
        file = next(Path(folder).glob("run/steps/*/model.dgz"))
        command = [sys.executable, "-c", EVALUATED, str(file)]
        decoded = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = file.stat().st_size
    dense = 100 * result.steps[0].metrics["accuracy"].value
    row = dense, decoded, size, 4 * result.record.original.parameters / size, seconds
    print(f"{name:24} seed {seed}: {line(*row)}", flush=True)
    return row


def line(dense: float, decoded: float, size: float, ratio: float, seconds: float) -> str:
    """A line of figures."""
    return (
        f"{size:5.0f} bytes, {ratio:3.0f} times smaller; {decoded:.2f} %, dense {dense:.2f} %, "
        f"{dense - decoded:+.2f} points lost; {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
