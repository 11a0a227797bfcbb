"""From which share of zeros and up to which batch a linear layer without its zeros is faster.

Two layers of a feed-forward block, 768-3072-768 with ReLU between, in eager PyTorch: dense, and with their
zeros left out by `deploy.sparse`. Both are read in turn; a cell is how many times as fast the sparse one is,
by the fastest reading of each, since other work on the machine only ever adds to a reading.
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch
from torch import nn

import demiglace
from demiglace.measure import in_turn

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
BATCHES = (1, 8, 32, 128, 512)
BAR = (0.98, 8, 4.0)
"""At 98 % zeros and batch 8, at least four times as fast."""


def main() -> int:
    """Print the table; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="for the readings of a cell")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, {torch.backends.cpu.get_cpu_capability()}\n")
    print("| zeros | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |")
    print("|---" * (len(BATCHES) + 1) + "|")
    found = {}
    for share in SPARSITIES:
        dense, sparse = blocks(share)
        for batch in BATCHES:
            found[share, batch] = ratio(dense, sparse, batch, options.seconds)
        cells = " | ".join(f"{found[share, batch]:.1f}" for batch in BATCHES)
        print(f"| {share:.0%} | {cells} |", flush=True)
    share, batch, least = BAR
    return int(found[share, batch] < least)


def blocks(share: float) -> tuple[nn.Module, nn.Module]:
    """The block with a share of zeros in each weight, as it is and without them."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(768, 3072), nn.ReLU(), nn.Linear(3072, 768)).eval()
    prune = {"use": "prune.magnitude", "amount": share, "scope": "layer"}
    demiglace.run({"pass": [prune]}, model=dense)
    step = {"use": "deploy.sparse", "min_speedup": 0.0, "min_sparsity": 0.0}
    return dense, demiglace.run({"pass": [step]}, model=copy.deepcopy(dense)).model


@torch.inference_mode()
def ratio(dense: nn.Module, sparse: nn.Module, batch: int, seconds: float) -> float:
    """How many times as fast the sparse block is."""
    inputs = torch.randn(batch, 768)
    calls = {"dense": lambda: dense(inputs), "sparse": lambda: sparse(inputs)}
    times = in_turn(calls, rounds=200, seconds=seconds)
    return times["dense"].fastest / times["sparse"].fastest


if __name__ == "__main__":
    sys.exit(main())
