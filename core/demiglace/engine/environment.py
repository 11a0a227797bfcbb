"""What of the machine and the installation can change a result's bits, for the record."""

from __future__ import annotations

import platform
from hashlib import sha256
from typing import Any

from demiglace.machine import version

LIBRARIES = ("demiglace", "torch", "torchvision", "numpy", "safetensors", "pydantic", "pluggy", "tomli")


def environment() -> dict[str, Any]:
    """Versions, threads and instruction set: the same seed gives other bits when these differ."""
    import torch

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": {name: version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def derive_seed(seed: int, *path: str) -> int:
    """A seed for one part of a run, of 63 bits, from the recipe's seed and the part's name."""
    text = "/".join((str(seed), *path))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little") >> 1
