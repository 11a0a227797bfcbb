"""What tests of several areas share."""

import os
import sys
from pathlib import Path

import pytest

# Each test process takes one core: two that take two each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where tests import onnxruntime before the project does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Site:
    """A folder of installed distributions, on the path of this process."""

    #: A plugin module that works, with one editor; the class itself is in another module, `acme_round`.
    ROUND = """
import demiglace
from demiglace.passes import Config, Kind, PassSpec, Share


class RoundConfig(Config):
    '''Round weights to a grid.'''

    step: Share = 0.01
    '''The distance of two grid points.'''


@demiglace.hookimpl
def demiglace_passes():
    return [PassSpec("acme.round", Kind.EDITOR, RoundConfig, "acme_round:Round")]
"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(
        self,
        distribution: str,
        modules: dict[str, str],
        *,
        version: str = "1.0",
        points: dict[str, str] | None = None,
        requires: tuple[str, ...] = (),
    ) -> None:
        """Write a distribution: its modules, and metadata as an installer does."""
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(text)
        points = {next(iter(modules)): next(iter(modules))} if points is None else points
        lines = [f"{name} = {module}" for name, module in points.items()]
        needs = [f"Requires-Dist: {need}" for need in requires]
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}", *needs, ""])
        )
        (info / "entry_points.txt").write_text("\n".join(["[demiglace]", *lines, ""]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A `Site`, first on `sys.path`; the modules that come from it are forgotten afterwards."""
    made = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(made.folder))
    yield made
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(made.folder)):
            del sys.modules[name]
