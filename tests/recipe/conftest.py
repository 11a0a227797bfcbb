"""What the tests of the recipe language share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demiglace.errors import RecipeError
from demiglace.recipe import Recipe, load_recipe


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Writes files named by keyword and leaves the test in their folder, so that errors show short names."""
    monkeypatch.chdir(tmp_path)

    def files(**texts: str) -> Path:
        for name, text in texts.items():
            Path(f"{name}.toml").write_text(text)
        return Path(f"{next(iter(texts))}.toml")

    return files


@pytest.fixture
def load(write) -> Callable[..., Recipe]:
    """The recipe from a text, read from a file `r.toml`."""

    def loaded(text: str, *overrides: str, **others: str) -> Recipe:
        return load_recipe(write(r=text, **others), overrides=overrides)

    return loaded


@pytest.fixture
def faults(load) -> Callable[..., list[str]]:
    """The first line of each fault of a recipe that must be refused."""

    def found(text: str, *overrides: str, **others: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **others)
        return [str(fault).partition("\n")[0] for fault in caught.value.faults]

    return found


@pytest.fixture
def message(load) -> Callable[..., str]:
    """The whole text of the error of a recipe that must be refused."""

    def text_of(text: str, *overrides: str, **others: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **others)
        return str(caught.value)

    return text_of
