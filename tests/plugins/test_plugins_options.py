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


class Base(Config):
    """A base."""

    first: int = 1
    """Of the base."""
    second: int = 2
    """Of the base too,
    on two lines."""


class Derived(Base):
    """Derived."""

    second: int = 3
    """Of the derived."""
    third: Annotated[int, Field(alias="third-one", description="By the field.")] = 4
    """Not this."""
    fourth: int = 5


def test_a_meaning_is_the_docstring_below_the_option_nearest_class_first():
    assert {one.name: one.meaning for one in options_of(Derived)} == {
        "first": "Of the base.",
        "second": "Of the derived.",
        "third-one": "By the field.",
        "fourth": "",
    }
    assert options_of(Base)[1].meaning == "Of the base too, on two lines."


def test_classes_within_functions_and_without_files_have_meanings_or_none():
    class Local(Config):
        """Local."""

        inner: int = 1
        """Within a function."""

    made = type("Made", (Config,), {"__annotations__": {"x": int}, "x": 1, "__module__": "nowhere"})
    assert options_of(Local)[0].meaning == "Within a function."
    assert options_of(made)[0].meaning == ""
