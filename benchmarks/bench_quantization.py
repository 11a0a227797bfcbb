"""What each quantizer costs in accuracy and gives in size and processor time, on 5,000 real digits.

Each row starts from the same dense nets, one for each seed. Accuracy is the mean over seeds; size is that of
all tensors; time is processor time of one call against that of the dense net, in turn in this process, in
eager PyTorch: integer layers are reference arithmetic here, which a runtime replaces by fused kernels.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from typing import Any

import torch
from torch import nn

import demiglace

DATA = {"use": "mnist5k", "validation": 0.0, "batch_size": 128}
FIT = {
    "use": "train.supervised",
    "epochs": 25,
    "optimizer": {"name": "Adam", "lr": 2e-3},
    "scheduler": "CosineAnnealingLR",
}
WEIGHTS = {"use": "quantize.weight_only"}
SOFT = {"use": "distill.logits", "teacher": "start", "alpha": 0.7}
WAYS: dict[str, dict[str, Any]] = {
    "bfloat16": {"use": "quantize.cast"},
    "int8 weights": WEIGHTS,
    "int8 dynamic": {"use": "quantize.dynamic"},
    "int8 static": {"use": "quantize.static"},
    "int4 static": {"use": "quantize.static", "bits": 4},
    "int4 weights": WEIGHTS | {"bits": 4},
    "int3 weights": WEIGHTS | {"bits": 3},
    "int3 weights, hqq": WEIGHTS | {"bits": 3, "method": "hqq"},
    "int3 weights, gptq": WEIGHTS | {"bits": 3, "method": "gptq"},
    "int3 weights, adaround": WEIGHTS | {"bits": 3, "method": "adaround"},
    "int2 weights": WEIGHTS | {"bits": 2},
    "int2 weights, gptq": WEIGHTS | {"bits": 2, "method": "gptq"},
    "ternary, trained": FIT
    | {"optimizer": {"name": "Adam", "lr": 1e-3}, "with": [SOFT, {"use": "quantize.qat", "bits": 2}]},
}
BATCHES = (1, 64)


def main() -> int:
    """Print the table; 1 when a quantizer misses its bar on LeNet-300-100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="dense nets to start from")
    parser.add_argument("--variant", choices=["lenet-300-100", "lenet-5"], default="lenet-300-100")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = {"use": "lenet", "variant": options.variant}
    rows: dict[str, list[tuple[float, float, list[float]]]] = {}
    for seed in range(options.seeds):
        dense = run(model, FIT, seed)
        rows.setdefault("float32", []).append((dense.metrics["accuracy"], size(dense), [1.0, 1.0]))
        for way, options_of_pass in WAYS.items():
            result = run(copy.deepcopy(dense.model), options_of_pass, seed)
            figures = (result.metrics["accuracy"], size(result), times(result.model, dense.model))
            rows.setdefault(way, []).append(figures)
            print(f"  seed {seed}: {way} {figures[0]:.3f}", file=sys.stderr)
    report(options.variant, rows)
    lost = {way: loss(rows, way) for way in WAYS}
    bars = {"int8 static": 0.2, "int4 static": 0.2, "int8 dynamic": 0.2, "ternary, trained": 1.0}
    return int(any(lost[way] > bar for way, bar in bars.items()))


def run(model: nn.Module | dict[str, Any], made: dict[str, Any], seed: int) -> demiglace.Result:
    """A pass, and the accuracy after it."""
    recipe = {"seed": seed, "data": DATA, "pass": [made, {"use": "evaluate.classification"}]}
    if isinstance(model, nn.Module):
        return demiglace.run(recipe, model=model)
    return demiglace.run(recipe | {"model": model})


def size(result: demiglace.Result) -> float:
    """Kilobytes of all tensors."""
    return result.steps[0].after.bytes / 1000


def times(module: nn.Module, dense: nn.Module) -> list[float]:
    """Processor time of a call as a share of the dense net's, for each size of batch."""
    return [ratio(module, dense, torch.rand(batch, 1, 28, 28)) for batch in BATCHES]


def ratio(module: nn.Module, dense: nn.Module, values: torch.Tensor) -> float:
    """The median of ratios of ten calls each, in turn."""
    with torch.inference_mode():
        return statistics.median(spent(module, values) / spent(dense, values) for _ in range(15))


def spent(module: nn.Module, values: torch.Tensor) -> float:
    started = time.process_time()
    for _ in range(10):
        module(values)
    return time.process_time() - started


def loss(rows: dict[str, list[tuple[float, float, list[float]]]], way: str) -> float:
    """Points of accuracy lost, as the mean over seeds."""
    pairs = zip(rows["float32"], rows[way], strict=True)
    return 100 * statistics.mean(dense[0] - one[0] for dense, one in pairs)


def report(variant: str, rows: dict[str, list[tuple[float, float, list[float]]]]) -> None:
    """Print the table."""
    seeds = len(rows["float32"])
    print(f"\n{variant}, {seeds} seeds     accuracy %   lost    kB   time, batch 1   batch 64")
    for way, found in rows.items():
        accuracy = 100 * statistics.mean(one[0] for one in found)
        one, many = (statistics.median(row[2][at] for row in found) for at in (0, 1))
        print(
            f"{way:24s} {accuracy:10.2f} {loss(rows, way):7.2f} {found[0][1]:6.0f} {one:12.2f} {many:10.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
