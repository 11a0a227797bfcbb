"""What a plugin's option model refuses, in words and with places: the second stage of validation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from demiglace.errors import RecipeError
from demiglace.passes import Config, Selector, Share, Targeted
from demiglace.recipe import PassTable, validate
from demiglace.recipe.toml import parse


class Norm(StrEnum):
    L1 = "l1"
    L2 = "l2"


class Optimizer(Config):
    """An optimizer."""

    name: str
    """A class of torch.optim."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""


class Options(Targeted):
    """Options of every kind that passes have."""

    amount: Share = 0.5
    """Share of the weights that is removed."""
    scope: Literal["global", "layer"] = "global"
    optimizer: Literal["continue"] | Optimizer = "continue"
    """How to train."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    size: tuple[int, int] = (1, 1)
    lrs: list[Annotated[float, Field(gt=0)]] = Field(default=[])
    by_layer: dict[str, Share] = Field(default={})
    temperature: float = Field(default=2.0, gt=0, le=100)
    group: int = Field(default=4, multiple_of=4)
    """Weights that share a scale; as many as
    divide a row. More is coarser."""
    norm: Norm = Norm.L1
    path: Path | None = None
    nested: bool = False
    widths: list[int] = Field(default=[1, 2], min_length=2, max_length=3)
    either: int | float | list[str] = 1

    @model_validator(mode="after")
    def _possible(self):
        if self.scope == "layer" and self.amount > 0.9:
            raise ValueError("`amount` above 0.9 with scope layer would empty a layer")
        return self


def validated(options: str, model: type[BaseModel] = Options):
    step = parse(f"[[pass]]\n{options}", "r.toml").child("pass").child(0)
    return validate(
        model,
        step.plain(),
        place=lambda path, of="value": step.place(path[2:], of),
        prefix=("pass", 0),
        known=PassTable.key_names(),
    )


def refused(options: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        validated(options)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("marked", "words"),
    [
        ("amount = ^true", "amount must be a number between 0 and 1, not true"),
        ("amount = ^'0.5'", 'amount must be a number between 0 and 1, not "0.5"'),
        ("amount = ^7", "amount must be a number between 0 and 1, not 7"),
        ("amount = ^nan", "amount must be a number between 0 and 1, not nan"),
        ("amount = ^inf", "amount must be a number between 0 and 1, not inf"),
        ("scope = ^'glob'", 'scope must be one of "global", "layer", not "glob"'),
        ("epochs = ^1.5", "epochs must be a whole number of at least 1, not 1.5"),
        ("epochs = ^0", "epochs must be a whole number of at least 1, not 0"),
        ("size = ^[1]", "size must be a list of 2 whole numbers, not a list of 1"),
        ("size = ^[1, 2, 3]", "size must be a list of 2 whole numbers, not a list of 3"),
        ("size = [1, ^2.5]", "size.1 must be a whole number, not 2.5"),
        ("lrs = [1, ^0]", "lrs.1 must be a number above 0, not 0"),
        ("lrs = ^1", "lrs must be a list of numbers, not 1"),
        ("by_layer = { fc1 = ^2 }", "by_layer.fc1 must be a number between 0 and 1, not 2"),
        ("by_layer.fc1 = ^2", "by_layer.fc1 must be a number between 0 and 1, not 2"),
        ("by_layer = ^3", "by_layer must be a table, not 3"),
        ("temperature = ^0", "temperature must be a number above 0 and at most 100, not 0"),
        ("group = ^6", "group must be a whole number that is a multiple of 4, not 6"),
        ("norm = ^'l3'", 'norm must be one of "l1", "l2", not "l3"'),
        ("path = ^3", "path must be text, not 3"),
        ("nested = ^1", "nested must be true or false, not 1"),
        ("widths = ^[1]", "widths must be a list of 2 to 3 whole numbers, not a list of 1"),
        ("either = ^'x'", 'either must be a number or a list of texts, not "x"'),
        ("optimizer = ^'contin'", 'optimizer must be "continue" or a table, not "contin"'),
        ("optimizer = { name = 'A', lr = ^0 }", "optimizer.lr must be a number above 0, not 0"),
        ("targets = [^'']", "targets.0: an empty selector matches nothing; write `*` for every layer"),
        ("scope = ^'" + "y" * 99 + "'", f'scope must be one of "global", "layer", not "{"y" * 56}...'),
    ],
)
def test_a_refused_value_says_where_it_is_what_it_must_be_and_what_it_is(marked, words):
    (fault,) = refused(marked.replace("^", "", 1))
    assert fault.partition("\n")[0] == f"r.toml:2:{marked.index('^') + 1}: pass.0.{words}"


def test_the_value_is_underlined_and_the_options_meaning_is_the_hint():
    (fault,) = refused("amount  = true # x")
    assert fault == (
        "r.toml:2:11: pass.0.amount must be a number between 0 and 1, not true\n"
        "    2 | amount  = true # x\n"
        "      |           ^^^^\n"
        "  hint: Share of the weights that is removed."
    )


def test_a_meaning_is_a_whole_sentence_and_no_more():
    (fault,) = refused("group = true")
    assert fault.endswith("  hint: Weights that share a scale; as many as divide a row.")


@pytest.mark.parametrize(("option", "plain"), [("amount = '0.5'", "0.5"), ("nested = 'true'", "true")])
def test_a_value_in_needless_quotes_is_told_so(option, plain):
    assert refused(option)[0].endswith(f"hint: write {plain} without quotes")


def test_what_options_together_make_impossible_is_placed_at_the_table():
    assert refused("amount = 1\nscope = 'layer'")[0].startswith(
        "r.toml:1:1: pass.0: `amount` above 0.9 with scope layer would empty a layer"
    )


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("amont = 1", "did you mean `amount`?"),
        ("allow_nop = true", "did you mean `allow_noop`?"),
        ("optimizer = { name = 'A', l = 1 }", "did you mean `lr`?"),
        ("optimizer = { name = 'A', zzzz = 1 }", "known keys: lr, name"),
    ],
)
def test_an_unknown_key_shows_the_nearest_of_its_table(option, hint):
    (fault,) = refused(option)
    assert ": unknown key pass.0." in fault
    assert fault.endswith(f"hint: {hint}")


def test_a_missing_key_is_placed_at_the_key_of_its_inline_table():
    (fault,) = refused("optimizer = { lr = 1 }")
    assert fault == (
        "r.toml:2:1: pass.0.optimizer.name is missing\n"
        "    2 | optimizer = { lr = 1 }\n"
        "      | ^^^^^^^^^\n"
        "  hint: A class of torch.optim."
    )


def test_every_fault_comes_at_once_in_the_order_of_the_text():
    lines = [one.partition(": ")[0] for one in refused("zzz = 1\namount = 2\nsize = []\nlrs = [0, 1, 'x']")]
    assert lines == ["r.toml:2:1", "r.toml:3:10", "r.toml:4:8", "r.toml:5:8", "r.toml:5:14"]


def test_lists_fill_tuples_and_text_fills_enums_and_paths():
    options = validated("size = [3, 4]\nnorm = 'l2'\npath = 'a/b'\neither = 2")
    assert (options.size, options.norm, options.path, options.either) == ((3, 4), Norm.L2, Path("a/b"), 2)


def test_without_a_text_the_path_names_the_value():
    with pytest.raises(RecipeError) as caught:
        validate(Options, {"amount": 2, "optimizer": {"name": 3}}, prefix=("pass", 4))
    assert [(fault.message, fault.place) for fault in caught.value.faults] == [
        ("pass.4.amount must be a number between 0 and 1, not 2", None),
        ("pass.4.optimizer.name must be text, not 3", None),
    ]


def test_what_json_cannot_hold_is_a_fault():
    with pytest.raises(RecipeError, match="pass holds something that is not plain data"):
        validate(Options, {"amount": object()}, prefix=("pass",))
    with pytest.raises(RecipeError, match="pass holds something that is not plain data"):
        validate(Options, {"scope": "\ud800"}, prefix=("pass",))


def test_a_model_that_has_no_schema_still_gives_faults_in_pydantics_words():
    class Thing:
        pass

    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True, strict=True)
        thing: Thing | None = None
        amount: float

    with pytest.raises(RecipeError, match=r"amount: Input should be a valid number, not \"x\""):
        validate(Odd, {"amount": "x"})


def test_thousands_of_faults_of_one_table_are_counted_not_listed():
    model = create_model("M", __base__=Config)
    with pytest.raises(RecipeError) as caught:
        validate(model, {f"k{index}": 1 for index in range(700)})
    assert len(caught.value.faults) == 501
    assert any(fault.message == "the recipe has 200 more faults like these" for fault in caught.value.faults)


def test_of_a_unions_branches_the_one_with_words_of_its_own_speaks():
    model = create_model("M", __base__=Config, layers=(list[str] | Selector, ...))
    with pytest.raises(RecipeError, match="layers: an empty selector matches nothing"):
        validate(model, {"layers": ""})


def test_the_hint_of_an_option_with_alternatives_is_the_options_own_meaning():
    assert refused("optimizer = 3")[0].endswith("hint: How to train.")
