from typing import Annotated, Literal

from pydantic import BaseModel, Field

from demiglace.passes import Config
from demiglace.plugins.options import options_of


class Inner(BaseModel):
    lr: float = 0.1
    name: str


class Options(Config):
    """All sorts."""

    share: Annotated[float, Field(gt=0, le=1)]
    count: Annotated[int, Field(ge=1)] | None = None
    norm: Literal["l1", "l2"] = "l1"
    either: str | Inner = "a"
    names: Annotated[list[str], Field(min_length=1)] = ["x"]  # noqa: RUF012
    steps: list[Inner] = []  # noqa: RUF012
    extra: dict[str, float] = {}  # noqa: RUF012
    anything: Annotated[int, Field(alias="with-alias")] = 3


def row(name):
    return next(one for one in options_of(Options) if one.name == name)


def test_types_are_told_in_words():
    types = {one.name: one.type for one in options_of(Options)}
    assert types == {
        "share": "number",
        "count": "integer",
        "norm": '"l1" or "l2"',
        "either": "string or table",
        "either.lr": "number",
        "either.name": "string",
        "names": "list of string",
        "steps": "list of table",
        "steps[].lr": "number",
        "steps[].name": "string",
        "extra": "table of number",
        "with-alias": "integer",
    }


def test_ranges_are_told_in_words():
    assert row("share").range == "above 0, at most 1"
    assert row("count").range == "at least 1"
    assert row("names").range == "at least 1 items"
    assert row("norm").range == ""


def test_defaults_and_requirements():
    assert row("share").required
    assert not row("count").required
    assert row("count").default is None
    assert row("norm").default == "l1"
    assert row("either.name").required
