"""What `quantize.dynamic` gains in PyTorch itself: eager, and compiled by Inductor.

A feed-forward block, 768-3072-768 with GELU between, and a small perceptron, 784-512-10, against their own
fp32 in eager PyTorch. All are read in turn, by processor time on one thread, each reading the mean of the
calls of 50 ms; a cell is by the fastest reading of each, since other work on the machine only adds to one.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from torch import nn

import demiglace
from benchmarks.timing import fastest
from demiglace.machine import compiler

BARS = {1: 2.3, 32: 3.5, 512: 2.7}
"""Times as fast as eager fp32 that the feed-forward block must be, by batch, in one of the two."""


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="readings of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"1 thread, {torch.backends.cpu.get_cpu_capability()}\n")
    print("| network | batch | int8, eager | fp32, compiled | int8, compiled |\n|---|---|---|---|---|")
    block = nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768))
    small = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    gains = rows("768-3072-768", block.eval(), options.rounds)
    rows("784-512-10", small.eval(), options.rounds)
    return int(any(gains[batch] < bar for batch, bar in BARS.items()))


def rows(name: str, dense: nn.Module, rounds: int) -> dict[int, float]:
    """Print a row for each batch; the larger gain of int8 by batch."""
    integers = demiglace.run({"pass": [{"use": "quantize.dynamic"}]}, model=copy.deepcopy(dense)).model
    gains = {}
    for batch in BARS:
        found = speedups(dense, integers, torch.randn(batch, dense[0].in_features), rounds)
        cells = " | ".join(f"{one:.2f}" for one in found)
        print(f"| {name} | {batch} | {cells} |", flush=True)
        gains[batch] = max(found[0], found[-1])
    return gains


@torch.inference_mode()
def speedups(dense: nn.Module, integers: nn.Module, inputs: torch.Tensor, rounds: int) -> list[float]:
    """Times as fast as eager fp32: int8 eager, and where there is a compiler fp32 and int8 compiled."""
    calls: dict[str, Callable[[], object]] = {"fp32": lambda: dense(inputs), "int8": lambda: integers(inputs)}
    if compiler() is not None:
        torch.compiler.reset()
        settings = {"dynamic": False, "options": {"freezing": True}}
        made = [torch.compile(one, **settings) for one in (dense, integers)]
        calls |= {"fp32, compiled": lambda: made[0](inputs), "int8, compiled": lambda: made[1](inputs)}
    times = fastest(calls, rounds, 0.05)
    return [times["fp32"] / times[name] for name in list(calls)[1:]]


if __name__ == "__main__":
    sys.exit(main())
