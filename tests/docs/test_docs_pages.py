"""Every page is run: its recipes, its Python, its commands. A new page under docs/ is found by itself."""

import sys

import pytest
import torch
from docs_page import PAGES, ROOT, SLOW, Page, file_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import demiglace


def slow(path):
    return [pytest.mark.slow] if SLOW in path.read_text(encoding="utf-8") else []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's own folder, importable and current; modules that come from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # which a page's own tests would take up
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def names():
    """What the pages' Python takes as given: a small classifier, and examples that it can learn."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(320, 16)
    labels = inputs[:, :4].argmax(dim=1)
    train, test = TensorDataset(inputs[:256], labels[:256]), TensorDataset(inputs[256:], labels[256:])
    loaders = {"train_loader": DataLoader(train, 32), "test_loader": DataLoader(test, 64)}
    return {"model": model, "inputs": inputs[256:], **loaders}


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT)), marks=slow(path)) for path in PAGES]
)
def test_what_a_page_shows_is_true(path, folder):
    page = Page(path, folder)
    page.document.namespace.update(names())
    for example in page.document.examples():
        try:
            example.evaluate()
        except BaseException as error:
            error.add_note(f"in {path.relative_to(ROOT)}, line {example.line}")
            raise


def test_the_pass_of_the_readme_works(folder):
    page = Page(ROOT / "README.md", folder)
    for example in page.document.examples():
        if file_of(example):
            example.evaluate()
    given = names()
    result = demiglace.run({"pass": [{"use": "acme.sign", "amount": 0.5}]}, model=given["model"])
    weight = result.model[0].weight
    assert len(weight.abs().unique()) == 2
    assert int((weight == 0).sum()) == weight.numel() // 2
