"""all-MiniLM-L6-v2 in few bytes: real files, opened in another process, against the original's embeddings.

Needs the published folder and the package `tokenizers`, as `bench_sentences` does:
`python -m benchmarks.bench_rate FOLDER [BITS ...] [--method rtn] [--level max]`. Calibrates on 256
sentences and prints, for each number of bits a weight, the file's size, the mean cosine on 200 and on 1,000
other sentences, and the share of these whose nearest neighbour among 200 stays the same.
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
from torch import Tensor

import demiglace
from benchmarks.bench_sentences import SET, embedded, encoder, kept

BITS = (6.75, 4.05, 3.55)


def main() -> int:
    """Print a line for each size; without a folder, say what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("bits", nargs="*", type=float, default=BITS)
    parser.add_argument("--method", default="gptq")
    parser.add_argument("--level", default="default")
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
    print(f"{'bits':>6} {'MB':>7} {'cosine of 200':>14} {'of 1,000':>9} {'neighbours kept':>16} {'CPU s':>6}")
    for bits in options.bits:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            passes = [
                {"use": "quantize.rate", "bits_per_weight": bits, "method": options.method},
                {"use": "export.packed", "level": options.level},
            ]
            model, out = copy.deepcopy(original), Path(folder)
            demiglace.run(
                {"name": "bench", "pass": passes},
                model=model,
                data=calibration,
                example_inputs=calibration[0],
                out=out / "run",
            )
            seconds = time.process_time() - started
            [file] = (out / "run").rglob("*.dgz")
            found = of_file(file, test, options.folder)
            size = file.stat().st_size / 1e6
        if not torch.equal(found, embedded(model, test)):
            print("the file does not compute what the model computes")
            return 1
        few, all_of = (
            torch.cosine_similarity(*pair).mean() for pair in ((found[:SET], wanted[:SET]), (found, wanted))
        )
        print(
            f"{bits:6.2f} {size:7.3f} {few:14.4f} {all_of:9.4f} {kept(found, wanted):16.3f} {seconds:6.0f}",
            flush=True,
        )
    return 0


def of_file(file: Path, batches: list[dict[str, Tensor]], folder: Path) -> Tensor:
    """The embeddings that a packed file gives in a fresh process with the network's code."""
    inputs, outputs = file.with_name("inputs.pt"), file.with_name("outputs.pt")
    torch.save(batches, inputs)
    script = (
        "import sys, torch, bert, demiglace; torch.set_num_threads(1); torch.set_grad_enabled(False); "
        "file, config, inputs, outputs = sys.argv[1:]; "
        "model = demiglace.load(file, model=lambda: bert.build(config)); "
        "torch.save(torch.cat([model(**one) for one in torch.load(inputs)]), outputs)"
    )
    paths = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", script, file, folder, inputs, outputs]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})
    return torch.load(outputs)


if __name__ == "__main__":
    sys.exit(main())
