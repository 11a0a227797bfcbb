"""Packing and loading on one core: ratio to raw float32, speed in MB of raw weights, memory beyond the model.

Takes names of torchvision's models, whose weights are random here: trained ones are a little smaller; or the
folder of all-MiniLM-L6-v2, as `bench_sentences` does. Loading is measured in a process of its own. Prints one
line a case, with the largest section of integers relative to their order-0 entropy and 64 bytes; returns 1
when a bar is missed.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

ENTROPY_BAR = 1.01  # of a section of integers, less 64 bytes, to their order-0 entropy
SPEED_BAR = 50  # MB of raw weights a second
MEMORY_BAR = 64  # MB beyond the model
RATIO_BARS = {"float32": 0.88, "bfloat16": 0.36, "int8": 0.26, "int4": 0.14, "sparse90": 0.15}  # of float32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet50", "vit_b_16"])
    parser.add_argument("--one", metavar="CASE", help="one case, in this process")
    parser.add_argument("--load", metavar="FILE", help="load a file in this process")
    parser.add_argument("--level", choices=["default", "max"], default="default")
    options = parser.parse_args()
    if options.one:
        print(*measured(options.models[0], options.one, options.level == "max"))
        return 0
    if options.load:
        print(*loaded(options.models[0], Path(options.load)))
        return 0
    missed = [name for model in options.models for name in RATIO_BARS if not case(model, name, options.level)]
    return 1 if missed else 0


def case(model: str, name: str, level: str) -> bool:
    command = [sys.executable, __file__, model, "--one", name, "--level", level]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ratio, packing, loading, of_packing, of_loading, section = map(float, printed.split())
    print(
        f"{Path(model).name:10} {name:9} {ratio:6.4f} of float32 (bar {RATIO_BARS[name]}), "
        f"packed {packing:5.1f} MB/s, loaded {loading:5.1f} MB/s, "
        f"MB beyond the model {of_packing:3.0f} and {of_loading:3.0f}, "
        f"sections at most {section:.4f} of their entropy",
        flush=True,
    )
    # The levels differ in speed: the bar is the default's.
    fast = level == "max" or min(packing, loading) >= SPEED_BAR
    small = ratio <= RATIO_BARS[name] and section <= ENTROPY_BAR
    return small and fast and max(of_packing, of_loading) <= MEMORY_BAR


def measured(model: str, name: str, context: bool) -> tuple[float, ...]:
    """Ratio, MB/s packed, MB/s loaded, MB beyond the model while each, and the largest section's ratio."""
    from demiglace.artifact import CallerOrigin
    from demiglace.artifact.packed import pack
    from demiglace.graph import ModelGraph

    torch.set_num_threads(1)
    torch.manual_seed(0)
    graph = ModelGraph(build(model).eval())
    weights = sum(one.numel() for one in graph.module.parameters())
    origin = CallerOrigin.of(graph.module)
    PREPARE[name](graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.dgz"
        before, started = settled_bytes(), time.process_time()
        written = pack(graph, path, origin=origin, context=context)
        packing, memory = time.process_time() - started, peak_bytes() - before
        command = [sys.executable, __file__, model, "--load", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        loading, of_loading = map(float, printed.split())
        section = largest_section(path)
    raw = 4 * weights
    speeds = raw / 1e6 / packing, raw / 1e6 / loading
    return written.bytes / raw, *speeds, memory / 1e6, of_loading, section


def build(model: str, weights: bool = True) -> nn.Module:
    """A network by its name or folder."""
    if not Path(model).is_dir():
        from torchvision.models import get_model

        return get_model(model)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import bert

    return bert.load(Path(model)) if weights else bert.build(Path(model))


def loaded(model: str, path: Path) -> tuple[float, float]:
    """Seconds of the processor that loading takes, and MB of memory beyond the model that it gives."""
    from demiglace.artifact import CallerOrigin, load
    from demiglace.artifact.packed import pack
    from demiglace.graph import ModelGraph

    torch.set_num_threads(1)
    with torch.device("meta"):
        build(model, weights=False)
    # What is imported on the way is no part of what loading takes.
    small = ModelGraph(nn.Sequential(nn.Linear(4, 4)))
    origin, tiny = CallerOrigin.of(small.module), path.with_name("tiny.dgz")
    quantized(4)(small)
    pack(small, tiny, origin=origin, context=True)
    load(tiny, model=lambda: nn.Sequential(nn.Linear(4, 4)))
    before, started = settled_bytes(), time.process_time()
    module = load(path, model=lambda: build(model, weights=False))
    seconds, memory = time.process_time() - started, peak_bytes() - before
    tensors = {id(one): one.nbytes for one in [*module.parameters(), *module.buffers()]}
    return seconds, (memory - sum(tensors.values())) / 1e6


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


STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def settled_bytes() -> float:
    """The memory that this process has; on Linux its peak is counted anew from here on."""
    gc.collect()
    if not STATUS.exists():
        return peak_bytes()
    REFERENCES.write_text("5")
    return of_status("VmRSS")


def of_status(name: str) -> float:
    """A size that Linux tells."""
    found = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(found.split()[1])


def peak_bytes() -> float:
    """The largest memory that this process had."""
    if STATUS.exists():
        return of_status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(main())
