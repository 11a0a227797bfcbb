"""The door: a wheel of the core alone, plus one foreign distribution, runs a recipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]

FOREIGN = """
import demiglace
from demiglace.passes import Config, Contract, Kind, PassSpec, Provides, Share, SourceSpec


class SignConfig(Config):
    '''Replace small weights by zero and the others by their layer's mean magnitude.'''

    amount: Share = 0.5
    '''Share of each layer's weights that become zero.'''

    def contract(self):
        return Contract.of(needs=("weights.float",))


class NetConfig(Config):
    '''A linear layer.'''


@demiglace.hookimpl
def demiglace_passes():
    return [PassSpec("acme.sign", Kind.EDITOR, SignConfig, "acme_code:Sign")]


@demiglace.hookimpl
def demiglace_sources():
    return [SourceSpec("acme-net", Provides.MODEL, NetConfig, "acme_code:Net")]
"""

CODE = """
import torch
from demiglace.graph import Write
from demiglace.passes import Editor, ModelSource


class Sign(Editor):
    def edits(self, model, context, amount=None):
        for weight in model.weights():
            size = weight.tensor.abs()
            large = size >= size.quantile(self.config.amount)
            yield Write(weight.name, weight.tensor.sign() * size.mean() * large)


class Net(ModelSource):
    def build(self):
        return torch.nn.Linear(8, 4)
"""

RECIPE = """
name = "foreign"
requires = ["acme-passes>=1.0"]

[model]
use = "acme-net"

[[pass]]
use = "acme.sign"
amount = 0.25
"""


def _core_wheel(folder: Path) -> Path:
    """A wheel of the core without any package of `plugins/` and `recipes/`, from a copy of the tree."""
    tree = folder / "tree"
    shutil.copytree(ROOT / "core", tree / "core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    text = (ROOT / "pyproject.toml").read_text()
    head, _, rest = text.partition("[project.entry-points.demiglace]")
    text = head + rest[rest.index("\n[") :]
    packages = tomli.loads(text)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for package in packages:
        if not package.startswith("core/"):
            text = text.replace(f'  "{package}",\n', "")
    (tree / "pyproject.toml").write_text(text)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tree, check=True, capture_output=True
    )
    return next((tree / "dist").glob("*.whl"))


def _install(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)


@pytest.mark.slow
def test_a_core_without_plugins_runs_a_foreign_distributions_recipe(tmp_path):
    core, foreign = tmp_path / "core", tmp_path / "foreign"
    _install(_core_wheel(tmp_path), core)
    info = foreign / "acme_passes-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-passes\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[demiglace]\nacme = acme_specs\n")
    (foreign / "acme_specs.py").write_text(FOREIGN)
    (foreign / "acme_code.py").write_text(CODE)
    (tmp_path / "foreign.toml").write_text(RECIPE)

    # -S leaves out the path files by which the editable installation of this tree, plugins and all, is
    # found; the dependencies come from its folder all the same, after the wheel of the core.
    path = [core, foreign, sysconfig.get_path("purelib")]
    environment = {"PYTHONPATH": ":".join(map(str, path)), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def demiglace(*words: str) -> str:
        command = [sys.executable, "-S", "-m", "demiglace", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    plugins = json.loads(demiglace("plugins", "--json"))
    assert [plugin["distribution"] for plugin in plugins] == ["acme-passes"]
    demiglace("run", "foreign.toml", "--out", "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["steps"][0]["plugin"] == "acme (acme-passes 1.2)"
    assert record["steps"][0]["after"]["zeros"] == 8
