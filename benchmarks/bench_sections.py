"""What trained integers take in a packed file, section by section, beside other coders.

`python -m benchmarks.bench_sections FILE...` takes packed files and files of plain weights (`.safetensors`,
or `.pth` with a state dict). Of plain weights each matrix and kernel is rounded, without calibration: 8 bits
and 4 bits a row, and 4 bits in groups of 32 where these fit. Each line is the sum over all sections of at
least 2,000 integers, as shares of their order-0 entropy, 64 bytes less for each section of ours:

- `default`, `max`: the two levels; how many sections `max` brings to 0.92 at most; MB/s of float32 at `max`
- `xz -9e`, `zstd -19`: the first two million integers of each section, one a byte
- `laplace`: a distribution of Laplace for each integer, whose spread is that of its row times that of its
  column; the spreads cost nothing here, so that no such coder which looks at rows and columns does better
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Section = tuple[str, np.ndarray]
LEAST, PART = 2000, 1 << 21
BAR = 0.92


@dataclass
class Row:
    """Bytes of a section, by coder."""

    entropy: float
    coded: dict[str, float]
    seconds: float
    integers: int


def main() -> int:
    """Print a line for each file and way of rounding; with `--each`, one for each section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    if not options.files:
        print("give packed files, or files of plain weights, to measure them")
        return 0
    torch.set_num_threads(1)
    print(f"{'':44} integers   MB   default    max  <= {BAR}   MB/s  xz -9e  zstd -19  laplace")
    for file in options.files:
        for kind, sections in kinds(file):
            rows = {}
            for name, integers in sections:
                rows[name] = measured(integers)
                if options.each:
                    print(line(f"  {name}", [rows[name]]), flush=True)
            print(line(f"{file.name} {kind}", list(rows.values())), flush=True)
    return 0


def kinds(file: Path) -> Iterator[tuple[str, Iterator[Section]]]:
    """The sections of a packed file, or of plain weights as they are rounded in each way."""
    from demiglace.quantization import Scheme

    if file.suffix == ".dgz":
        yield "as packed", of_file(file)
        return
    for bits, group in ((8, None), (4, None), (4, 32)):
        yield (
            f"{bits} bits" + (f", groups of {group}" if group else ""),
            rounded(file, Scheme(bits, group=group)),
        )


def of_file(file: Path) -> Iterator[Section]:
    from demiglace.artifact.packed import unpack
    from demiglace.quantization.packing import unpack as integers_of

    content = unpack(file)
    for name, entry in content.header.tensors.items():
        if entry.fields is not None:
            integers = integers_of(content.tensors[name], entry.fields.bits, entry.fields.columns)
            if integers.numel() >= LEAST:
                yield name, integers.numpy()


def rounded(file: Path, scheme) -> Iterator[Section]:
    from demiglace.quantization import round_weight

    for name, weight in weights(file).items():
        if weight.dim() < 2 or not weight.is_floating_point() or weight.numel() < LEAST:
            continue
        matrix = weight.flatten(1)
        if scheme.fits(matrix.shape[1]):
            yield name, round_weight(matrix.float(), scheme).integers.numpy()


def weights(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def measured(integers: np.ndarray) -> Row:
    from demiglace.artifact.packed.ans import cost
    from demiglace.artifact.packed.blocks import Fields, encoded_fields
    from demiglace.artifact.packed.container import framed
    from demiglace.quantization.packing import pack

    octets = integers.view(np.uint8)
    tensor, fields = pack(torch.from_numpy(integers), 8), Fields(8, integers.shape[1])
    coded, seconds = {}, 0.0
    for level in ("default", "max"):
        started = time.process_time()
        blocks = encoded_fields(tensor, fields, context=level == "max")
        coded[level] = sum(len(framed(block)) for block in blocks) - 64
        seconds = time.process_time() - started
    entropy = cost(np.bincount(octets.reshape(-1))) / 8
    part = octets.reshape(-1)[:PART]
    share = entropy / (cost(np.bincount(part)) / 8)
    coded["xz"] = share * len(lzma.compress(part.tobytes(), preset=9 | lzma.PRESET_EXTREME))
    if shutil.which("zstd"):
        command = ["zstd", "-19", "-c", "-q"]
        run = subprocess.run(command, input=part.tobytes(), check=True, capture_output=True)
        coded["zstd"] = share * len(run.stdout)
    coded["laplace"] = laplace(integers) / 8
    return Row(entropy, coded, seconds, integers.size)


def laplace(integers: np.ndarray) -> float:
    """Bits by a discretized Laplace distribution, the spread of each integer its row's times its column's."""
    usual = np.bincount(integers.view(np.uint8).reshape(-1)).argmax().astype(np.uint8).view(np.int8)
    size = np.abs(integers.astype(np.float64) - float(usual)) + 1e-3
    columns = size.mean(0) / size.mean()
    mean = np.multiply.outer((size / columns).mean(1), columns)
    spread = 0.5 / np.arcsinh(0.5 / mean)  # at which the mean of the sizes is this
    size = np.round(size)
    share = np.where(size == 0, 1 - np.exp(-0.5 / spread), np.sinh(0.5 / spread) * np.exp(-size / spread))
    return -float(np.log2(share).sum())


def line(name: str, rows: list[Row]) -> str:
    entropy = sum(row.entropy for row in rows)
    share = {coder: sum(row.coded.get(coder, np.nan) for row in rows) / entropy for coder in COLUMNS}
    below = sum(row.coded["max"] <= BAR * row.entropy for row in rows)
    speed = 4 * sum(row.integers for row in rows) / 1e6 / sum(row.seconds for row in rows)
    return (
        f"{name[-44:]:44} {sum(row.integers for row in rows):8} {entropy / 1e6:5.2f} "
        f"{share['default']:8.4f} {share['max']:7.4f} {below:3} of {len(rows):3} {speed:5.1f} "
        f"{share['xz']:7.3f} {share['zstd']:8.3f} {share['laplace']:9.4f}"
    )


COLUMNS = ("default", "max", "xz", "zstd", "laplace")


if __name__ == "__main__":
    raise SystemExit(main())
