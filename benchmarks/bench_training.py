"""The training loop against a hand-written one, what a gradual pruner adds, and what a teacher's cache saves.

Both sides train one wide perceptron on the same batches with the same optimizer, in turn; the median of the
pairs' ratios of processor time counts. A step should take 20 ms or more: --width sets that. The pruner acts
every 2 % of the training. The teacher has four times the student's MACs; the second epoch of a distillation
is what two epochs take more than one.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

import demiglace

BAR, PRUNER_BAR, CACHE_BAR = 1.10, 1.05, 1.5
ADAM = {"name": "Adam", "lr": 1e-3}
PRUNER = {"use": "prune.magnitude", "amount": 0.9, "schedule": {"begin": 0.0, "end": 0.8}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    width = options.width
    net = nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    draw = torch.Generator().manual_seed(0)
    data = [(torch.randn(128, 784, generator=draw), torch.arange(128) % 10) for _ in range(options.steps)]
    pairs = []
    for _ in range(options.pairs + 1):  # the first warms up
        plain, ours = by_hand(copy.deepcopy(net), data), by_recipe(copy.deepcopy(net), data)
        pairs.append((plain, ours, by_recipe(copy.deepcopy(net), data, PRUNER)))
    pairs = pairs[1:]
    loop = statistics.median(ours / plain for plain, ours, _ in pairs)
    pruner = statistics.median(pruned / ours for _, ours, pruned in pairs)
    step = statistics.median(plain for plain, _, _ in pairs) / options.steps
    print(f"a step by hand       {1000 * step:6.1f} ms")
    print(f"the loop             {loop:6.3f} x of it    (bar {BAR})")
    print(f"with gradual pruning {pruner:6.3f} x the loop (bar {PRUNER_BAR})")
    saved = statistics.median(second_epoch(width, False) / second_epoch(width, True) for _ in range(3))
    print(f"second epoch cached  {saved:6.3f} x faster   (bar {CACHE_BAR})")


def by_hand(net: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Processor seconds of plain PyTorch."""
    started = time.process_time()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for inputs, labels in data:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(inputs), labels)
        loss.item()  # every loop looks at its loss
        loss.backward()
        optimizer.step()
    return time.process_time() - started


def by_recipe(net: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]], *participants: dict) -> float:
    """Processor seconds of the train pass alone, as the run's record has them."""
    train = {"use": "train.supervised", "epochs": 1, "optimizer": ADAM, "with": list(participants)}
    result = demiglace.run({"name": "loop", "pass": [train]}, model=net, data=data)
    return result.steps[0].cpu_seconds


def second_epoch(width: int, cache: bool) -> float:
    """Processor seconds of the second epoch of a student whose teacher has four times its MACs."""

    def seconds(epochs: int) -> float:
        soft = {"use": "distill.logits", "alpha": 1.0, "cache": cache}
        train = {"use": "train.supervised", "epochs": epochs, "loss": "none", "with": [soft]}
        recipe = {
            "name": "cache",
            "student": {"use": "mlp", "widths": [784, width // 2, width // 2, 10]},
            "teacher": {"use": "mlp", "widths": [784, 5 * width // 4, 5 * width // 4, 10]},
            "data": {"use": "fake", "shape": [784], "train": 2560, "batch_size": 128},
            "pass": [train],
        }
        return demiglace.run(recipe).steps[0].cpu_seconds

    return seconds(2) - seconds(1)


if __name__ == "__main__":
    main()
