"""What a process sees that starts from nothing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from demiglace.artifact import CallerOrigin, open_artifact, save

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph

_IMPORT = "import sys, importlib; importlib.import_module(sys.argv[1]); sys.exit('torch' in sys.modules)"


def fresh_processes() -> multiprocessing.context.BaseContext:
    """Starts processes that know nothing of this one; on Linux from one that has imported torch."""
    # Elsewhere, what torch is linked with may not bear being forked.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    return context


def imports_torch(module: str) -> bool:
    """Whether importing a module by name imports torch."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(  # noqa: S603 - our own code, in our own interpreter
        [sys.executable, "-c", _IMPORT, module],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )
    return done.returncode != 0


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
        AssertionError: when the model cannot be opened; its cause is what the other process raised.
    """
    from safetensors.torch import load_file, save_file

    save(model, folder / "artifact", origin=CallerOrigin.of(factory()))
    save_file({"inputs": inputs}, folder / "inputs.safetensors")
    try:
        with ProcessPoolExecutor(1, mp_context=fresh_processes()) as process:
            process.submit(_open, folder, f"{factory.__module__}:{factory.__qualname__}").result()
    except Exception as error:
        raise AssertionError(f"the artifact does not open in a fresh process: {error!r}") from error
    found = load_file(folder / "outputs.safetensors")
    outputs = found.pop("outputs")
    return outputs, {name.removeprefix("mask:"): keep for name, keep in found.items()}


def _open(folder: Path, factory: str) -> None:
    """Open the artifact in a folder and keep what it computes there, as the other process does."""
    from pkgutil import resolve_name

    from safetensors.torch import load_file, save_file

    artifact = open_artifact(folder / "artifact", model=resolve_name(factory))
    # A copy lies in memory as torch aligns it, on which the last bit of a product may depend.
    inputs = load_file(folder / "inputs.safetensors")["inputs"].clone()
    outputs = artifact.module(inputs).detach().contiguous()
    masks = {f"mask:{name}": keep.contiguous() for name, keep in artifact.masks.items()}
    save_file({"outputs": outputs, **masks}, folder / "outputs.safetensors")
