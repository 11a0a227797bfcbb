"""How much of `import torch` the commands cost that need no tensor, and what a long recipe costs to check."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.timing import cpu_seconds, paired, python

COMMANDS = (["--help"], ["check", "recipe:digits"], ["schema"], ["plugins"], ["describe", "prune.magnitude"])


def main() -> None:
    """Print a line a command: its processor seconds and its share of `import torch`."""
    for words in COMMANDS:
        own, torch, ratio = paired([sys.executable, "-m", "demiglace", *words], python("import torch"))
        print(f"demiglace {' '.join(words):28s} {own:.3f} s, import torch {torch:.2f} s, ratio {ratio:.3f}")
    own, bare, _ = paired(python("import demiglace"), python("pass"), runs=11)
    print(f"import demiglace adds {own - bare:.4f} s to a bare interpreter's {bare:.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "long.toml"
        recipe.write_text(long_recipe(1000), encoding="utf-8")
        seconds = cpu_seconds([sys.executable, "-m", "demiglace", "check", str(recipe)])
        print(f"check of 1,000 passes {seconds:.2f} s")


def long_recipe(passes: int) -> str:
    """A right recipe of so many passes."""
    head = 'name = "long"\n[model]\nuse = "mlp"\nwidths = [784, 64, 10]\n[data]\nuse = "mnist5k"\n'
    table = '[[pass]]\nid = "step-{0}"\nuse = "prune.magnitude"\namount = 0.{0:04d}\ntargets = ["fc*"]\n'
    return head + "".join(table.format(number) for number in range(1, passes + 1))


if __name__ == "__main__":
    main()
