"""Packing and loading on one core: ratio to raw float32, speed in MB of raw weights, memory beyond the model.

Random weights: trained ones are a little smaller. Prints one line a case, with the largest section of
integers relative to their order-0 entropy and 64 bytes; returns 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ENTROPY_BAR = 1.01  # of a section of integers, less 64 bytes, to their order-0 entropy
SPEED_BAR = 50  # MB of raw weights a second
MEMORY_BAR = 64  # MB beyond the model
RATIO_BARS = {"float32": 0.88, "bfloat16": 0.36, "int8": 0.26, "int4": 0.14, "sparse90": 0.15}  # of float32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet50", "vit_b_16"])
    parser.add_argument("--one", metavar="CASE", help="one case, in this process")
    parser.add_argument("--level", choices=["default", "max"], default="default")
    options = parser.parse_args()
    if options.one:
        print(*measured(options.models[0], options.one, options.level == "max"))
        return 0
    missed = [name for model in options.models for name in RATIO_BARS if not case(model, name, options.level)]
    return 1 if missed else 0


def case(model: str, name: str, level: str) -> bool:
    command = [sys.executable, __file__, model, "--one", name, "--level", level]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ratio, packing, loading, memory, section = map(float, printed.split())
    print(
        f"{model:10} {name:9} {ratio:6.4f} of float32 (bar {RATIO_BARS[name]}), packed {packing:4.0f} MB/s, "
        f"loaded {loading:4.0f} MB/s, {memory:4.0f} MB beyond the model, "
        f"sections at most {section:.4f} of their entropy"
    )
    # The levels differ in speed: the bar is the default's.
    fast = level == "max" or min(packing, loading) >= SPEED_BAR
    small = ratio <= RATIO_BARS[name] and section <= ENTROPY_BAR
    return small and fast and memory <= MEMORY_BAR


def measured(model: str, name: str, context: bool) -> tuple[float, float, float, float, float]:
    """Ratio, MB/s packed, MB/s loaded, MB of memory beyond the model, and the largest section's ratio."""
    from torchvision.models import get_model

    from demiglace.artifact import SourceOrigin, load
    from demiglace.artifact.packed import pack
    from demiglace.graph import ModelGraph

    torch.set_num_threads(1)
    torch.manual_seed(0)
    graph = ModelGraph(get_model(model).eval())
    weights = sum(one.numel() for one in graph.module.parameters())
    PREPARE[name](graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.dgz"
        before, started = peak_bytes(), time.process_time()
        written = pack(graph, path, origin=SourceOrigin(model), context=context)
        packed, memory = time.process_time(), peak_bytes() - before
        load(path, resolve=lambda source, _: lambda: get_model(source))
        loaded = time.process_time()
        section = largest_section(path)
    raw = 4 * weights
    speeds = raw / 1e6 / (packed - started), raw / 1e6 / (loaded - packed)
    return written.bytes / raw, *speeds, memory / 1e6, section


def largest_section(path: Path) -> float:
    """The largest ratio of a section of integers, less 64 bytes, to their order-0 entropy; 0 without any."""
    from demiglace.artifact.inspection import inspect

    found = [one for one in inspect(path).tensors if one.dtype.startswith("int") and one.entropy]
    return max((8 * (one.bytes - 64) / (one.entropy * one.elements) for one in found), default=0.0)


def quantized(bits: int):
    def prepare(graph) -> None:
        from demiglace.graph import apply
        from demiglace.passes import Context
        from demiglace_quantizers.weight_only import WeightOnly, WeightOnlyConfig

        editor = WeightOnly(WeightOnlyConfig(bits=bits))
        apply(graph, editor.edits(graph, Context(0, torch.device("cpu")))).commit()

    return prepare


def pruned(graph) -> None:
    from demiglace.graph import apply
    from demiglace.passes import Context
    from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig

    editor = Magnitude(MagnitudeConfig(amount=0.9))
    apply(graph, editor.edits(graph, Context(0, torch.device("cpu")))).commit()


PREPARE = {
    "float32": lambda graph: None,
    "bfloat16": lambda graph: graph.module.to(torch.bfloat16),
    "int8": quantized(8),
    "int4": quantized(4),
    "sparse90": pruned,
}


def peak_bytes() -> float:
    """The largest memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(main())
