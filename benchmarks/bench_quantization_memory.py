"""The peak memory of quantizers, above the loaded model and its data.

Prints, each from a process of its own: the model's bytes, those of all outputs of its layers for one batch,
the peak of a plain forward pass over the data, and that of the quantizer. For all-MiniLM-L6-v2 give its
folder, as for `bench_sentences`: `python -m benchmarks.bench_quantization_memory [FOLDER]`. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import demiglace

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WEIGHTS = {"use": "quantize.weight_only"}
GPTQ = WEIGHTS | {"bits": 4, "method": "gptq"}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "resnet18": {"8 bits": WEIGHTS, "static": {"use": "quantize.static"}, "4 bits, gptq": GPTQ},
    "MiniLM": {"8 bits": WEIGHTS, "4 bits, gptq": GPTQ | {"group_size": 32}},
}


def main() -> int:
    """Print the table, or with the names of a network and a way, its line."""
    if not RESET.exists():
        print("the peak of a process can be set back on Linux only")
        return 0
    if len(sys.argv) > 2:
        print(line(sys.argv[1], sys.argv[2], sys.argv[3:]))
        return 0
    print(f"{'MB':26s} model  layers' outputs  forward pass  quantizer")
    for network in ("resnet18", *(["MiniLM"] if len(sys.argv) == 2 else [])):
        for way in WAYS[network]:
            command = [sys.executable, "-m", "benchmarks.bench_quantization_memory", network, way]
            subprocess.run([*command, *sys.argv[1:]], check=True)
    return 0


def line(network: str, way: str, folder: list[str]) -> str:
    """One line of the table."""
    torch.set_num_threads(1)
    model, batches = resnet() if network == "resnet18" else minilm(Path(folder[0]))
    held = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    largest = max(batches, key=lambda batch: sum(one.numel() for one in _tensors(batch)))
    outputs = outputs_of(model, largest)

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                _call(model, batch)

    def quantize() -> None:
        demiglace.run(recipe, model=model, data=batches, example_inputs=batches[0])

    recipe = {"pass": [WAYS[network][way]]}
    # What a first run imports is no memory of the quantizer's.
    small, images = nn.Sequential(nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8)).eval(), torch.randn(2, 32, 4, 4)
    demiglace.run(recipe, model=small, data=[images], example_inputs=images)
    plain, peak = added(forward), added(quantize)
    name = f"{network}, {way}"
    return f"{name:26s} {held / 1e6:5.0f} {outputs / 1e6:16.0f} {plain / 1e6:13.0f} {peak / 1e6:10.0f}"


def resnet() -> tuple[nn.Module, list[Any]]:
    """A resnet18 and 128 images in batches of 32."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18().eval(), list(torch.randn(128, 3, 224, 224).split(32))


def minilm(folder: Path) -> tuple[nn.Module, list[Any]]:
    """all-MiniLM-L6-v2 and 256 sentences in batches of 32."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import bert
    from sentences import sentences

    from benchmarks.bench_sentences import encoder

    texts, encode = sentences(256), encoder(folder / "tokenizer.json")
    return bert.load(folder), [encode(texts[at : at + 32]) for at in range(0, 256, 32)]


def outputs_of(model: nn.Module, batch: Any) -> int:
    """The bytes of what all layers give for a batch."""
    sizes: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.append(output.nbytes)

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    with torch.inference_mode():
        _call(model, batch)
    for hook in hooks:
        hook.remove()
    return sum(sizes)


def added(work: Callable[[], None]) -> int:
    """What some work adds to the resident memory at its peak, in bytes."""
    RESET.write_text("5", encoding="ascii")  # proc(5): the peak becomes what is resident
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(one.split()[1]) for one in lines if one.startswith(f"{key}:"))


def _tensors(batch: Any) -> list[Tensor]:
    return list(batch.values()) if isinstance(batch, dict) else [batch]


def _call(model: nn.Module, batch: Any) -> Any:
    return model(**batch) if isinstance(batch, dict) else model(batch)


if __name__ == "__main__":
    sys.exit(main())
