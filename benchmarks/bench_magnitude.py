"""Global magnitude pruning against `torch.nn.utils.prune.global_unstructured`, on vit_l_16's weights.

Prints the ratio of time (median of pairs, torch's once by default: it takes most of a minute and 10 GB)
and the memory that each needs beyond the model. Ours includes the masks and writing the zeros.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

BAR, GOAL, MEMORY_BAR = 8, 40, 0.05
TARGETS = ("type:Conv2d", "type:Linear")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["torch", "demiglace"], help="one side, in this process")
    parser.add_argument("--repeats", type=int, default=3, help="runs of our side; the median counts")
    options = parser.parse_args()
    if options.only:
        seconds, peak, masks = RUNS[options.only]()
        print(seconds, peak, masks)
        return 0
    theirs, their_peak, _ = measured("torch")
    runs = [measured("demiglace") for _ in range(options.repeats)]
    ours = statistics.median(seconds for seconds, _, _ in runs)
    weights = 4 * sum(weight.numel() for weight in modules_weights(model(device="meta")))
    extra = max(peak - masks for _, peak, masks in runs)
    print(f"torch      {theirs:7.2f} s  {their_peak / 1e6:8.0f} MB beyond the model")
    print(f"demiglace  {ours:7.2f} s  {extra / 1e6:8.0f} MB beyond the model and its masks")
    print(f"faster     {theirs / ours:7.1f} x  (bar {BAR}, goal {GOAL})")
    print(f"memory     {extra / weights:7.1%}    of the weights' bytes (bar {MEMORY_BAR:.0%})")
    return 0 if theirs / ours >= BAR and extra / weights < MEMORY_BAR else 1


def measured(side: str) -> tuple[float, float, float]:
    """Seconds, peak bytes beyond the model, and mask bytes of one side in a process of its own."""
    command = [sys.executable, __file__, "--only", side]
    seconds, peak, masks = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak), float(masks)


def model(device: str = "cpu") -> torch.nn.Module:
    """vit_l_16 with random weights."""
    from torchvision.models import vit_l_16

    with torch.device("meta"):
        module = vit_l_16()
    if device == "meta":
        return module
    module.to_empty(device=device)
    draw = torch.Generator(device).manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.02, generator=draw)
    return module


def modules_weights(module: torch.nn.Module) -> list[torch.Tensor]:
    from demiglace.graph import ModelGraph

    return [weight.tensor for weight in ModelGraph(module).weights(TARGETS)]


def run_torch() -> tuple[float, float, float]:
    from torch.nn.utils import prune

    from demiglace.graph import ModelGraph

    module = model()
    pairs = []
    for weight in ModelGraph(module).weights(TARGETS):
        holder = module.get_submodule(weight.module)
        pairs.append((holder, weight.name.rpartition(".")[2]))
    before, started = peak_bytes(), time.perf_counter()
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.5)
    return time.perf_counter() - started, peak_bytes() - before, 0


def run_demiglace() -> tuple[float, float, float]:
    from demiglace.graph import ModelGraph, apply
    from demiglace.passes import Context
    from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig

    graph = ModelGraph(model())
    total = sum(weight.tensor.numel() for weight in graph.weights(TARGETS))
    editor = Magnitude(MagnitudeConfig(amount=0.5, targets=list(TARGETS)))
    before, started = peak_bytes(), time.perf_counter()
    apply(graph, editor.edits(graph, Context(0, torch.device("cpu")))).commit()
    seconds, peak = time.perf_counter() - started, peak_bytes() - before
    zeros = sum(int((weight.tensor == 0).sum()) for weight in graph.weights(TARGETS))
    if zeros != round(0.5 * total):
        raise SystemExit(f"{zeros} zeros of {total}")
    return seconds, peak, sum(keep.nbytes for keep in graph.masks.values())


def peak_bytes() -> float:
    """The largest memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


RUNS = {"torch": run_torch, "demiglace": run_demiglace}

if __name__ == "__main__":
    sys.exit(main())
