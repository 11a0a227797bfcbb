"""What zeros gain on top of 8-bit integers, where few examples come at a time.

Four feed-forward blocks, 768-3072-768 with ReLU, 80 % of each weight zero, after `quantize.dynamic` and
after `quantize.static`: dense in eager PyTorch, by Inductor, and as files in ONNX Runtime and OpenVINO;
without their zeros in eager PyTorch, by `deploy.sparse_int8`. All are read in turn in one process, by
processor time on one thread, which other work on the machine disturbs least; with `--threads 2` by the
clock. A reading is the mean of the calls of 20 ms, as of a program that calls its model again and again;
with `--alone` it is one call, after all others have used the processor's caches. The fastest reading of
each counts.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import demiglace
from benchmarks.timing import fastest
from demiglace.machine import compiler
from demiglace.plugins import discover

BATCHES = (1, 2, 4, 8, 32)
BAR, UP_TO, AT = 1.5, 8, 0.8
"""At 80 % zeros and batches up to 8, at least 1.5 times as fast as the fastest dense form."""
FORMATS = {"onnx": "model.onnx", "openvino": "model.xml"}


def main() -> int:
    """Print the table; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="readings of each form")
    parser.add_argument("--alone", action="store_true", help="read single calls")
    parser.add_argument("--zeros", type=float, nargs="+", default=[AT], help="shares of zeros")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"threads: {options.threads}, {torch.backends.cpu.get_cpu_capability()}")
    missed = False
    for share in options.zeros:
        with TemporaryDirectory() as folder:
            ways = forms(share, Path(folder), options.threads)
            for batch in BATCHES:
                gain = row(share, batch, ways, options)
                missed |= share == AT and batch <= UP_TO and gain < BAR
    return int(missed)


def network(share: float) -> nn.Module:
    """Blocks with a share of zeros in each weight."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(768, 3072), nn.ReLU(), nn.Linear(3072, 768)) for _ in range(4)]
    prune = {"use": "prune.magnitude", "amount": share, "scope": "layer"}
    made: nn.Module = demiglace.run(
        {"pass": [prune, {"use": "prune.finalize"}]}, model=nn.Sequential(*blocks).eval()
    ).model
    return made


def forms(share: float, folder: Path, threads: int) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Every form of the blocks, by name: dense ones, and `... without zeros`."""
    start = network(share)
    sparse = {"use": "deploy.sparse_int8", "min_speedup": 0.0, "min_sparsity": 0.0}
    found: dict[str, Callable[[torch.Tensor], Any]] = {"fp32, eager": start}
    for way in ("dynamic", "static"):
        quantize = {"use": f"quantize.{way}"}
        dense = after([quantize], start)
        found[f"{way}, eager"] = dense
        if compiler() is not None:
            found[f"{way}, Inductor"] = torch.compile(copy.deepcopy(dense), options={"freezing": True})
        for name, file in FORMATS.items():
            place = folder / f"{way}-{name}"
            after([{"use": f"export.{name}", "id": "file"}], dense, out=place)
            path = place / "steps" / "01-file" / file
            found[f"{way}, {name}"] = discover().open_file(name, path, threads=threads)
        found[f"{way}, without zeros"] = after([quantize, sparse], start)
    return found


def after(passes: list[dict[str, Any]], model: nn.Module, **given: Any) -> nn.Module:
    """A copy of a model after some passes."""
    torch.manual_seed(1)
    data = {"calibration": [torch.randn(32, 768) for _ in range(4)]}
    made: nn.Module = demiglace.run({"pass": passes}, model=copy.deepcopy(model), data=data, **given).model
    return made


@torch.inference_mode()
def row(
    share: float,
    batch: int,
    ways: dict[str, Callable[[torch.Tensor], Any]],
    options: argparse.Namespace,
) -> float:
    """Print milliseconds of each form; the fastest dense one's as a multiple of the best without zeros."""
    inputs = torch.randn(batch, 768)
    calls = {name: lambda way=way: way(inputs) for name, way in ways.items()}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    times = fastest(calls, options.rounds, 0.0 if options.alone else 0.02, clock)
    integers = {name: spent for name, spent in times.items() if not name.startswith("fp32")}
    without = min(spent for name, spent in integers.items() if name.endswith("zeros"))
    best = min((spent, name) for name, spent in integers.items() if not name.endswith("zeros"))
    print(f"\n{share:.0%} zeros, batch {batch}: {best[0] / without:.2f} times {best[1]}")
    for name, spent in times.items():
        print(
            f"  {name:24} {1e3 * spent:7.3f} ms {times['fp32, eager'] / spent:6.2f} of eager fp32", flush=True
        )
    return best[0] / without


if __name__ == "__main__":
    sys.exit(main())
