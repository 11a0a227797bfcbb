"""What quantizers do to EfficientNet-Lite0 with its published weights, some channels of which are zero.

Needs the published checkpoint: `python -m benchmarks.bench_photos FILE`. Of 1,500 crops of the photos that
scikit-learn and Matplotlib bring, it takes those of which the original is over 50 % sure, and prints the
share on which the most likely class stays the same, and how far the logits are apart as a share of their
size. Calibrates on 256 other crops. The files of the last way are run by their runtimes.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import demiglace
from demiglace.plugins import discover

STATIC = {"use": "quantize.static"}
LAST = "8 bits, static and edges"
WAYS: dict[str, list[dict[str, Any]]] = {
    "8 bits, weights": [{"use": "quantize.weight_only"}],
    "8 bits, static": [STATIC],
    "8 bits, static, minmax": [STATIC | {"observer": "minmax"}],
    LAST: [STATIC, {"use": "quantize.edges"}],
}
FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
TRIED, CALIBRATION, SIDE = 1500, 256, 224


def main() -> int:
    """Print the table; without a checkpoint, say what is needed."""
    if len(sys.argv) < 2:
        print("give the checkpoint of EfficientNet-Lite0 to measure it")
        return 0
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import efficientnet

    torch.set_num_threads(1)
    original = efficientnet.load(sys.argv[1])
    draw = torch.Generator().manual_seed(0)
    calibration = crops(CALIBRATION, draw)
    test = torch.cat([sure(original, crops(50, draw)) for _ in range(TRIED // 50)])
    expected = scores(original, test)
    print(f"{len(test)} crops, {len(expected.argmax(1).unique())} classes")
    print(f"{'':26s} agreement  apart  processor seconds")
    for way, passes in WAYS.items():
        with TemporaryDirectory() as folder:
            exports = [{"use": f"export.{one}", "id": one} for one in FILES] if way == LAST else []
            started = time.process_time()
            model = run([*passes, *exports], original, calibration, Path(folder, "run"))
            spent = f"{time.process_time() - started:12.0f}"
            report(way, scores(model, test), expected, spent)
            for number, one in enumerate(exports, len(passes) + 1):
                place = Path(folder, "run", "steps", f"{number:02d}-{one['id']}", FILES[one["id"]])
                file = discover().open_file(one["id"], place, threads=1)
                report(f"  its file in {one['id']}", scores(file, test), expected)
    return 0


def run(passes: list[dict[str, Any]], original: nn.Module, calibration: Tensor, out: Path) -> nn.Module:
    """A copy of the network after some passes."""
    data = list(calibration.split(32))
    made: nn.Module = demiglace.run({"pass": passes}, model=copy.deepcopy(original), data=data, out=out).model
    return made


def report(way: str, found: Tensor, expected: Tensor, spent: str = "") -> None:
    """Print a row."""
    finite = "" if found.isfinite().all() else "  NOT FINITE"
    same = (found.argmax(1) == expected.argmax(1)).double().mean()
    apart = (found - expected).norm() / expected.norm()
    print(f"{way:26s} {same:9.4f} {apart:6.3f}{spent}{finite}", flush=True)


def sure(model: nn.Module, images: Tensor) -> Tensor:
    """The images of whose class a model is over 50 % sure."""
    return images[scores(model, images).softmax(1).amax(1) > 0.5]


def crops(count: int, draw: torch.Generator) -> Tensor:
    """Squares of the photos, of a random size and place, `[count, 3, 224, 224]`, from -1 to 1."""
    from matplotlib.cbook import get_sample_data
    from matplotlib.image import imread
    from sklearn.datasets import load_sample_images

    portrait = imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
    images = [*load_sample_images().images, portrait]
    photos = [torch.tensor(one).permute(2, 0, 1) / 127.5 - 1 for one in images]
    return torch.stack([_crop(photos[at % len(photos)], draw) for at in range(count)])


def _crop(photo: Tensor, draw: torch.Generator) -> Tensor:
    height, width = photo.shape[1:]
    share, top, left, mirror = torch.rand(4, generator=draw).tolist()
    side = int(min(height, width) * (0.4 + 0.6 * share))
    y, x = int(top * (height - side)), int(left * (width - side))
    square = photo[None, :, y : y + side, x : x + side]
    resized = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    return resized.flip(2) if mirror < 0.5 else resized


def scores(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of all images."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images.split(50)])


if __name__ == "__main__":
    sys.exit(main())
