"""What a process sees that starts from nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demiglace.artifact import CallerOrigin, save

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph

_IMPORT = "import sys, importlib; importlib.import_module(sys.argv[1]); sys.exit('torch' in sys.modules)"

_OPEN = """
import sys
from pkgutil import resolve_name
from safetensors.torch import load_file, save_file
from demiglace.artifact import open_artifact

folder, factory = sys.argv[1:]
artifact = open_artifact(folder + "/artifact", model=resolve_name(factory))
# A copy lies in memory as torch aligns it, on which the last bit of a product may depend.
inputs = load_file(folder + "/inputs.safetensors")["inputs"].clone()
outputs = artifact.module(inputs).detach().contiguous()
masks = {"mask:" + name: keep.contiguous() for name, keep in artifact.masks.items()}
save_file({"outputs": outputs, **masks}, folder + "/outputs.safetensors")
"""


def imports_torch(module: str) -> bool:
    """Whether importing a module by name imports torch."""
    return _python(_IMPORT, module).returncode != 0


def reopened(
    factory: Callable[[], nn.Module], model: ModelGraph, inputs: Tensor, folder: Path
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a saved model computes, and its masks, when another process opens it.

    Args:
        factory: makes the module as it was before any edit; importable by its qualified name.
        model: the model to save.
        inputs: the module's only input.
        folder: an empty folder.

    Raises:
        AssertionError: when the model cannot be opened; carries what the process wrote.
    """
    from safetensors.torch import load_file, save_file

    save(model, folder / "artifact", origin=CallerOrigin.of(factory()))
    save_file({"inputs": inputs}, folder / "inputs.safetensors")
    done = _python(_OPEN, str(folder), f"{factory.__module__}:{factory.__qualname__}")
    if done.returncode:
        raise AssertionError(f"the artifact does not open in a fresh process:\n{done.stderr}")
    found = load_file(folder / "outputs.safetensors")
    outputs = found.pop("outputs")
    return outputs, {name.removeprefix("mask:"): keep for name, keep in found.items()}


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(  # noqa: S603 - our own code, in our own interpreter
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
