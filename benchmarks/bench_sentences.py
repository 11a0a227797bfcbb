"""What quantizers do to all-MiniLM-L6-v2: fidelity of sentence embeddings, files, processor time.

Needs the published folder (`config.json`, `model.safetensors`, `tokenizer.json`) and the package
`tokenizers`: `python -m benchmarks.bench_sentences FOLDER [WAY ...]`. Prints, for 1,000 sentences, the mean
cosine with the original's embeddings, the mean squared distance from them, and the share whose nearest
neighbour among 200 stays the same; the last also for 2,000 further sentences. Other ones
calibrate: 512, or 256.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import demiglace

EXAMPLES = 512  # that calibrate, where a way does not ask for fewer
WEIGHTS = {"use": "quantize.weight_only"}
DYNAMIC = {"use": "quantize.dynamic"}
WAYS: dict[str, list[dict[str, Any]]] = {
    "8 bits": [WEIGHTS],
    "8 bits, linear in groups of 192": [
        WEIGHTS | {"targets": ["type:Embedding"]},
        WEIGHTS | {"targets": ["type:Linear"], "group_size": 192},
    ],
    "8 bits, gptq": [WEIGHTS | {"method": "gptq"}],
    "4 bits in groups of 32": [WEIGHTS | {"bits": 4, "group_size": 32}],
    "4 bits in groups of 32, gptq": [WEIGHTS | {"bits": 4, "group_size": 32, "method": "gptq"}],
    "the same, 256 examples": [
        WEIGHTS | {"bits": 4, "group_size": 32, "method": "gptq", "samples": EXAMPLES // 2}
    ],
    "4.6 bits in groups of 128, gptq": [
        WEIGHTS | {"budget": 4.6, "group_size": 128, "method": "gptq"},
    ],
    "dynamic": [DYNAMIC],
    "smoothed, dynamic": [{"use": "quantize.smooth"}, DYNAMIC],
}
SET = 200  # sentences among which neighbours are looked for
TOLD, FURTHER = 5 * SET, 10 * SET


def main() -> int:
    """Print the table; without a folder, say what is needed."""
    if len(sys.argv) < 2:
        print("give the folder of all-MiniLM-L6-v2 to measure it")
        return 0
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "benchmarks"))
    import bert
    from sentences import sentences

    torch.set_num_threads(1)
    ways = sys.argv[2:] or list(WAYS)
    original, texts = bert.load(folder), sentences(EXAMPLES + TOLD + FURTHER)
    encode, half = encoder(folder / "tokenizer.json"), EXAMPLES // 2
    known, texts = texts[:half] + texts[-half:], texts[half:-half]
    calibration = [encode(known[at : at + 32]) for at in range(0, len(known), 32)]
    test = [encode(texts[at : at + 50]) for at in range(0, len(texts), 50)]
    wanted = embedded(original, test)
    print(f"{'':32s} cosine distance  kept  further     MB  processor seconds")
    for way in ways:
        model, started = copy.deepcopy(original), time.process_time()
        with tempfile.TemporaryDirectory() as out:
            recipe = {"name": "bench", "pass": WAYS[way]}
            inputs = calibration[0]
            demiglace.run(recipe, model=model, data=calibration, example_inputs=inputs, out=f"{out}/run")
            size = sum(file.stat().st_size for file in Path(out, "run", "model").iterdir()) / 1e6
        seconds, found = time.process_time() - started, embedded(model, test)
        first, given = found[:TOLD], wanted[:TOLD]
        cosine = float(torch.cosine_similarity(first, given).mean())
        distance = float((first - given).square().sum(1).mean())
        shares = f"{kept(first, given):.3f}    {kept(found[TOLD:], wanted[TOLD:]):.3f}"
        print(f"{way:32s} {cosine:.4f}   {distance:.4f} {shares} {size:6.2f} {seconds:10.0f}", flush=True)
    return 0


def encoder(path: Path) -> Any:
    """A function from sentences to the model's inputs."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> dict[str, Tensor]:
        found = tokenizer.encode_batch(texts)
        return {
            "input_ids": torch.tensor([one.ids for one in found]),
            "attention_mask": torch.tensor([one.attention_mask for one in found]),
        }

    return encode


def embedded(model: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
    """The embeddings of all sentences, `[sentences, width]`."""
    with torch.inference_mode():
        return torch.cat([model(**batch) for batch in batches])


def kept(found: Tensor, wanted: Tensor) -> float:
    """The share of sentences whose nearest neighbour in their set is the original's."""
    pairs = zip(found.split(SET), wanted.split(SET), strict=True)
    return statistics.mean(float((nearest(one) == nearest(two)).double().mean()) for one, two in pairs)


def nearest(embeddings: Tensor) -> Tensor:
    """For each sentence the index of the nearest other."""
    return (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(1)


if __name__ == "__main__":
    sys.exit(main())
