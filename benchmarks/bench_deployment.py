"""Our int8 files against NNCF's, and both against floating point: speed and size of what ships.

One process, the same threads, runs in turn; figures are medians of processor time and their ratios, which
other work on the machine disturbs little. NNCF quantizes the same network in OpenVINO and is the yardstick;
without it and the runtimes there is nothing to measure, and this ends at once.

    python -m benchmarks.bench_deployment --efficientnet CHECKPOINT
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

import demiglace
from demiglace.plugins import discover
from demiglace_exporters.runtimes.openvino import library

BATCHES = (1, 32)
CALIBRATION = 16
QUANTIZE = [
    {"use": "quantize.static", "samples": CALIBRATION, "batch_size": 8},
    {"use": "quantize.edges", "samples": CALIBRATION, "batch_size": 8},
]
BAR = 0.95


def main() -> int:
    """Print a table for each network; 1 when one is slower than `BAR` of NNCF's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=["resnet18", "mobilenet_v2", "resnet18-half"])
    parser.add_argument(
        "--efficientnet", type=Path, help="checkpoint of EfficientNet-Lite0, measured as well"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="*", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if absent := [name for name in ("nncf", "onnxruntime", "openvino") if find_spec(name) is None]:
        print(f"nothing measured: {', '.join(absent)} is not installed")
        return 0
    torch.set_num_threads(options.threads)
    missed = False
    for name, network in _networks(options).items():
        with tempfile.TemporaryDirectory() as folder:
            missed |= _report(name, network, Path(folder), options)
    return int(missed)


def _networks(options: argparse.Namespace) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    found = {name: _network(name) for name in options.networks}
    if options.efficientnet is not None:
        from tests.benchmarks.efficientnet import load

        found["efficientnet_lite0"] = load(options.efficientnet).eval()
    for network in found.values():
        _settle(network)
    return found


def _network(name: str) -> nn.Module:
    """A network of torchvision's, with half of its channels removed where `-half` ends the name."""
    network: nn.Module = getattr(torchvision.models, name.removesuffix("-half"))().eval()
    if name.endswith("-half"):
        recipe = {"pass": [{"use": "prune.channels", "amount": 0.5}]}
        demiglace.run(recipe, model=network, example_inputs=_images(2))
    return network


def _settle(network: nn.Module) -> None:
    """Running statistics of batch norms on images, so that a fresh network's values have a size."""
    if all(bool((one.running_mean == 0).all()) for one in _norms(network)):
        network.train()
        with torch.no_grad():
            for seed in range(4):
                network(_images(8, seed))
        network.eval()


def _norms(network: nn.Module) -> list[Any]:
    return [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]


def _images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _report(name: str, network: nn.Module, folder: Path, options: argparse.Namespace) -> bool:
    files = _ours(network, folder)
    theirs = nncf_model(network)
    whole = sum(one.nbytes for one in network.state_dict().values())
    missed = False
    print(
        f"\n{name}: {files['bytes'] / whole:.3f} of fp32's bytes; "
        f"export and check {files['seconds']:.1f} s of processor time; "
        f"difference ONNX Runtime {files['onnx']:.4f}, OpenVINO {files['openvino']:.4f}"
    )
    for batch in options.batches:
        times = measure(_ways(network, folder, theirs, options.threads), _images(batch), options.rounds)
        best = min(times["int8 ONNX Runtime"], times["int8 OpenVINO"])
        ratio = times["int8 NNCF"] / best
        missed |= ratio < BAR
        print(f"  batch {batch}: ours {ratio:.2f} of NNCF")
        for way, seconds in times.items():
            print(f"    {way:20} {1e3 * seconds:9.2f} ms {times['eager fp32'] / seconds:6.2f} of eager")
    return missed


def _ours(network: nn.Module, folder: Path) -> dict[str, Any]:
    """Write the files; what they took."""
    data = {"calibration": [_images(8), _images(8, 1)]}
    steps = [*QUANTIZE, {"use": "export.onnx", "id": "onnx"}, {"use": "export.openvino", "id": "openvino"}]
    result = demiglace.run({"pass": steps}, model=copy.deepcopy(network), data=data, out=folder / "int8")
    plain = [{"use": "export.onnx", "id": "onnx"}, {"use": "export.openvino", "id": "openvino"}]
    demiglace.run({"pass": plain}, model=copy.deepcopy(network), data=data, out=folder / "plain")
    onnx, openvino = result.record.steps[-2:]
    (folder / "float").mkdir()
    for step in ("01-onnx", "02-openvino"):
        for file in (folder / "plain" / "steps" / step).iterdir():
            file.rename(folder / "float" / file.name)
    return {
        "bytes": onnx.figures["bytes"],
        "seconds": onnx.cpu_seconds,
        "onnx": onnx.figures["difference"],
        "openvino": openvino.figures["difference"],
    }


def nncf_model(network: nn.Module) -> Any:
    """The network quantized by NNCF, by OpenVINO's own way from PyTorch: over ONNX it comes out slower."""
    openvino = library()
    import nncf

    with torch.no_grad():
        model = openvino.convert_model(network, example_input=_images(1), input=[-1, 3, 224, 224])
    images = [_images(1, seed).numpy() for seed in range(CALIBRATION)]
    return nncf.quantize(model, nncf.Dataset(images), subset_size=CALIBRATION)


def _ways(network: nn.Module, folder: Path, theirs: Any, threads: int) -> Mapping[str, Callable[..., Any]]:
    registry = discover()
    steps = folder / "int8" / "steps"

    def opened(runtime: str, path: Path) -> Callable[..., Any]:
        return registry.open_file(runtime, path, threads=threads)

    return {
        "eager fp32": network,
        "fp32 ONNX Runtime": opened("onnx", folder / "float" / "model.onnx"),
        "fp32 OpenVINO": opened("openvino", folder / "float" / "model.xml"),
        "int8 ONNX Runtime": opened("onnx", steps / "03-onnx" / "model.onnx"),
        "int8 OpenVINO": opened("openvino", steps / "04-openvino" / "model.xml"),
        "int8 NNCF": _compiled(theirs, folder, threads),
    }


def _compiled(model: Any, folder: Path, threads: int) -> Callable[..., Any]:
    """NNCF's model, by the same way to a module as ours."""
    path = folder / "nncf.xml"
    library().save_model(model, path, compress_to_fp16=False)
    return discover().open_file("openvino", path, threads=threads)


@torch.no_grad()
def measure(ways: Mapping[str, Callable[..., Any]], inputs: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of processor time of a call of each, in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, call in ways.items():
            started = time.process_time()
            call(inputs)
            if turn > 1:
                found[name].append(time.process_time() - started)
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    raise SystemExit(main())
