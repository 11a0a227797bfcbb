"""all-MiniLM-L6-v2 in few bytes: real files, opened in another process, against the original's embeddings.

Needs the published folder and the package `tokenizers`, as `bench_sentences` does:
`python -m benchmarks.bench_rate FOLDER [BITS ...] [--method rtn]`. Calibrates on 256 sentences and prints,
for each number of bits a weight, the size of the file at both levels of packing, the mean cosine on 200 and
on 1,000 other sentences, and the share of these whose nearest neighbour among 200 stays the same.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import demiglace
from benchmarks.bench_sentences import SET, embedded, encoder, kept

BITS = (6.75, 4.65, 4.05, 3.55)
Batches = list[dict[str, Tensor]]


def main() -> int:
    """Print a line for each size; without a folder, say what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("bits", nargs="*", type=float, default=BITS)
    parser.add_argument("--method", default="gptq")
    options = parser.parse_args()
    if options.folder is None:
        print("give the folder of all-MiniLM-L6-v2 to measure it")
        return 0
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import bert
    from sentences import sentences

    torch.set_num_threads(1)
    texts, encode = sentences(5 * SET + 256), encoder(options.folder / "tokenizer.json")
    calibration = [encode(texts[at : at + 32]) for at in range(0, 256, 32)]
    test = [encode(texts[at : at + 50]) for at in range(256, len(texts), 50)]
    original = bert.load(options.folder)
    wanted = embedded(original, test)
    print("  bits       MB      max  cosine of 200  of 1,000  neighbours kept  CPU s")
    for bits in options.bits:
        started = time.process_time()
        given = {"bits_per_weight": bits, "method": options.method}
        sizes, found = packed(original, given, calibration, test, options.folder)
        seconds = time.process_time() - started
        cosines = torch.cosine_similarity(found, wanted)
        print(
            f"{bits:6.2f} {sizes[0]:8.3f} {sizes[1]:8.3f} {cosines[:SET].mean():14.4f} {cosines.mean():9.4f} "
            f"{kept(found, wanted):16.3f} {seconds:6.0f}",
            flush=True,
        )
    return 0


def packed(
    original: nn.Module, options: dict[str, object], calibration: Batches, test: Batches, config: Path
) -> tuple[list[float], Tensor]:
    """The megabytes of both files, and the embeddings that both give in fresh processes."""
    passes = [
        {"use": "quantize.rate", **options},
        {"use": "export.packed"},
        {"use": "export.packed", "level": "max", "file": "max.dgz"},
    ]
    recipe, model = {"name": "bench", "pass": passes}, copy.deepcopy(original)
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out, "run")
        demiglace.run(recipe, model=model, data=calibration, example_inputs=calibration[0], out=folder)
        files = [next(folder.rglob(name)) for name in ("model.dgz", "max.dgz")]
        sizes = [file.stat().st_size / 1e6 for file in files]
        wanted = embedded(model, test)
        if not all(torch.equal(of_file(file, test, config), wanted) for file in files):
            raise SystemExit("a file does not compute what the model computes")
    return sizes, wanted


def of_file(file: Path, batches: Batches, config: Path) -> Tensor:
    """The embeddings that a file gives in a fresh process, which has the network's code and no weights."""
    inputs, outputs = file.with_name("inputs.pt"), file.with_name("outputs.pt")
    torch.save(batches, inputs)
    script = (
        "import sys, torch, bert, demiglace; torch.set_num_threads(1); torch.set_grad_enabled(False); "
        "file, config, inputs, outputs = sys.argv[1:]; "
        "model = demiglace.load(file, model=lambda: bert.build(config)); "
        "torch.save(torch.cat([model(**one) for one in torch.load(inputs, weights_only=True)]), outputs)"
    )
    command = [sys.executable, "-c", script, file, config, inputs, outputs]
    paths = os.pathsep.join(filter(None, sys.path))
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})
    return torch.load(outputs, weights_only=True)


if __name__ == "__main__":
    sys.exit(main())
