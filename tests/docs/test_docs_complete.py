"""What the reference must name: whatever is registered, raised, written or called has its place there."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest
from docs_page import ROOT

import demiglace
from demiglace import errors
from demiglace.cli.group import COMMANDS
from demiglace.engine.gates import Verdict
from demiglace.engine.record import RunRecord, StepRecord
from demiglace.graph import edits
from demiglace.measure import Footprint
from demiglace.passes import Kind, contract
from demiglace.passes.schedule import Schedule
from demiglace.plugins import discover, hooks
from demiglace.recipe import NetworkTable, PassTable, Recipe, SourceTable
from demiglace.recipe.model import DataTable, Gate, RunTable

REFERENCE = ROOT / "docs" / "reference"


def quoted(page):
    """The words that a reference page sets in backquotes, and its headings."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w.:-]+", code)}


def own(names):
    """The names that come with demiglace, whatever else is installed here."""
    return {name for name in names if names.claimants(name)[0].distribution == "demiglace"}


def test_every_pass_and_source_has_its_section():
    registry = discover()
    names = own(registry.passes) | own(registry.model_sources) | own(registry.data_sources)
    assert names <= quoted("passes.md")


def test_every_hook_is_described():
    names = {name for name in vars(hooks) if name.startswith("demiglace_")}
    assert names
    assert names <= quoted("plugins.md")


def test_every_kind_edit_and_fact_is_described():
    kinds = {kind.value for kind in Kind}
    text = (REFERENCE / "plugins.md").read_text(encoding="utf-8")
    assert {kind for kind in kinds if f"| {kind} |" not in text} == set()
    facts = {value for name, value in vars(contract).items() if name.isupper()}
    made = {name for name, value in vars(edits).items() if dataclasses.is_dataclass(value)}
    assert facts | made <= quoted("plugins.md")


@pytest.mark.parametrize("table", [Recipe, SourceTable, DataTable, NetworkTable, RunTable, PassTable, Gate])
def test_every_key_of_the_envelope_is_described(table):
    assert set(table.key_names()) <= quoted("recipe-language.md")


def test_every_key_of_a_schedule_is_described():
    assert set(Schedule.model_fields) <= quoted("recipe-language.md")


@pytest.mark.parametrize("kept", [RunRecord, StepRecord, Footprint, Verdict])
def test_every_key_of_run_json_is_described(kept):
    names = {field.name for field in dataclasses.fields(kept)}
    assert names <= quoted("run-json.md")


def test_every_key_of_a_manifest_is_described(tmp_path):
    demiglace.run(
        {
            "model": {"use": "mlp", "widths": [4, 3, 2]},
            "pass": [{"use": "prune.magnitude", "amount": 0.5}],
        },
        out=tmp_path / "run",
    )
    manifest = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())
    names = {*manifest, *manifest["state"], *next(iter(manifest["state"]["tensors"].values()))}
    assert names <= quoted("artifact.md")


def test_every_error_has_its_exit_code():
    text = (REFERENCE / "errors-and-exit-codes.md").read_text(encoding="utf-8")
    raised = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    rows = {
        match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    }
    for kind in raised:
        if kind not in {errors.DemiglaceError, errors.Interrupted}:
            assert rows.get(kind.__name__) == str(kind.exit_code), kind.__name__


@pytest.mark.parametrize("name", sorted(set(demiglace.__all__) - {"__version__"}))
def test_everything_that_demiglace_exports_is_described(name):
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    assert name in text
    if inspect.isfunction(getattr(demiglace, name)):
        row = next(line for line in text.splitlines() if line.startswith(f"| `demiglace.{name}("))
        called = set(re.findall(r"\w+", row.partition(")")[0]))
        assert set(inspect.signature(getattr(demiglace, name)).parameters) <= called


def test_every_command_is_named():
    pages = [
        path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    ]
    assert {name for name in COMMANDS if not any(f"demiglace {name}" in page for page in pages)} == set()


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index)}
    pages = {path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"}
    assert pages - linked == set()


LINKS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", LINKS, ids=[str(path.relative_to(ROOT)) for path in LINKS])
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if target and not Path(page.parent, target).exists()] == []


def test_the_readme_shows_the_shipped_recipe():
    shipped = (ROOT / "recipes" / "demiglace_recipes" / "digits.toml").read_text(encoding="utf-8")
    assert shipped in (ROOT / "README.md").read_text(encoding="utf-8")
