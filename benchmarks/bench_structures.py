"""What removing half of a resnet18's channels gains in time, in eager PyTorch and in ONNX Runtime.

Both networks run in turn in one process, on a batch of 32 images of 224 x 224; the figures are medians of the
ratios of pairs. ONNX Runtime is measured where onnx, onnxscript and onnxruntime are installed.

    python -m benchmarks.bench_structures
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import demiglace

BATCH = 32
PAIRS = 15


def pruned(original: nn.Module, example: Tensor) -> nn.Module:
    """The network with half of its channels removed."""
    recipe = {"pass": [{"use": "prune.channels", "amount": 0.5}]}
    return demiglace.run(recipe, model=original, example_inputs=(example[:2],)).model.eval()


def in_onnx_runtime(network: nn.Module, example: Tensor, path: Path) -> Callable[[], Any]:
    """What runs a network there on the example."""
    import onnxruntime

    torch.onnx.export(network, (example,), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, given = session.get_inputs()[0].name, example.numpy()
    return lambda: session.run(None, {name: given})


def ratio(slow: Callable[[], Any], fast: Callable[[], Any]) -> float:
    """The median ratio of times, in pairs, after one warm-up each."""
    slow(), fast()
    return statistics.median(seconds(slow) / seconds(fast) for _ in range(PAIRS))


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        run()
    return time.perf_counter() - started


def main() -> None:
    torch.manual_seed(0)
    example = torch.randn(BATCH, 3, 224, 224)
    original = torchvision.models.resnet18(weights=None).eval()
    small = pruned(torchvision.models.resnet18(weights=None).eval(), example)
    print(f"resnet18, half of its channels, batch {BATCH}, {torch.get_num_threads()} threads")
    print(f"  eager PyTorch: {ratio(lambda: original(example), lambda: small(example)):.2f} times faster")
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = [
                in_onnx_runtime(network, example, Path(folder, f"{number}.onnx"))
                for number, network in enumerate((original, small))
            ]
        except ImportError as error:
            print(f"  ONNX Runtime: not measured, {error.name} is not installed")
            return
        print(f"  ONNX Runtime: {ratio(*runs):.2f} times faster")


if __name__ == "__main__":
    main()
