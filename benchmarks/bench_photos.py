"""What quantizers do to EfficientNet-Lite0 with its published weights, some channels of which are zero.

Needs the published checkpoint: `python -m benchmarks.bench_photos FILE`. Prints, for crops of the two photos
that scikit-learn brings, the share on which the most likely class stays the same, among those of which the
original is over 50 % sure. Calibrates on 256 other crops.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import demiglace

WAYS: dict[str, dict[str, Any]] = {
    "8 bits, weights": {"use": "quantize.weight_only"},
    "8 bits, static": {"use": "quantize.static"},
    "8 bits, static, minmax": {"use": "quantize.static", "observer": "minmax"},
}
TEST, CALIBRATION, SIDE = 500, 256, 224


def main() -> int:
    """Print the table; without a checkpoint, say what is needed."""
    if len(sys.argv) < 2:
        print("give the checkpoint of EfficientNet-Lite0 to measure it")
        return 0
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import efficientnet

    torch.set_num_threads(1)
    original = efficientnet.load(sys.argv[1])
    test, calibration = crops(TEST, 0), crops(CALIBRATION, 1)
    wanted = scores(original, test)
    sure = wanted.softmax(1).amax(1) > 0.5
    print(f"{int(sure.sum())} of {TEST} crops, {len(wanted[sure].argmax(1).unique())} classes")
    print(f"{'':26s} agreement  of all crops  processor seconds")
    for way, options in WAYS.items():
        model, started = copy.deepcopy(original), time.process_time()
        demiglace.run({"pass": [options]}, model=model, data=list(calibration.split(32)))
        seconds, found = time.process_time() - started, scores(model, test)
        same = (found.argmax(1) == wanted.argmax(1)).double()
        finite = "" if found.isfinite().all() else "  NOT FINITE"
        print(f"{way:26s} {same[sure].mean():.4f} {same.mean():12.4f} {seconds:12.0f}{finite}", flush=True)
    return 0


def crops(count: int, seed: int) -> Tensor:
    """Squares of both photos, of a random size and place, `[count, 3, 224, 224]`, from -1 to 1."""
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(one).permute(2, 0, 1) / 127.5 - 1 for one in load_sample_images().images]
    draw = torch.Generator().manual_seed(seed)
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
