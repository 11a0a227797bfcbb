"""`make bench`: every measurement of this folder, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each `bench_*.py`, or those that the command line names; return how many failed."""
    names = sys.argv[1:] or sorted(
        path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
    )
    failed = 0
    for name in names:
        print(f"== {name}", flush=True)
        failed += (
            subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
