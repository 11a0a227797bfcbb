"""The rules alone: facts and a goal in, a recipe out."""

from dataclasses import replace

import pytest

from demiglace.engine import Given, check
from demiglace.plugins import discover
from demiglace.quick import Draft, Facts, Goal, Weight, draft
from demiglace.quick.rules import WAYS
from demiglace.recipe import load_recipe, written
from demiglace.recipe.toml import parse

LABELLED = Facts(
    weights=(Weight(256, 1024, 4 * 256 * 1024), Weight(10, 256, 4 * 10 * 256)),
    bytes=4 * (256 * 1024 + 10 * 256 + 266),
    float_bytes=4 * (256 * 1024 + 10 * 256 + 266),
    splits=frozenset({"train", "validation", "test"}),
    labels=True,
    steps_per_epoch=50,
    prunable=True,
    accuracy=0.9,
    guessing=0.1,
)
ALONE = replace(
    LABELLED, splits=frozenset(), labels=False, steps_per_epoch=None, accuracy=None, guessing=None
)
UNLABELLED = replace(LABELLED, labels=False, accuracy=None, guessing=None)
SOURCES = {"model": {"use": "mlp", "widths": [784, 10]}, "data": {"use": "fake", "shape": [784]}}


def uses(made: Draft) -> list[str]:
    return [table["use"] for table in made.tables["pass"]]


def chosen(facts: Facts, **goal) -> Draft:
    return draft(facts, Goal(**goal), SOURCES)


@pytest.mark.parametrize(
    ("smaller", "expected"),
    [
        (2.0, {"use": "quantize.cast", "dtype": "bfloat16"}),
        (3.5, {"id": "int8", "use": "quantize.weight_only", "bits": 8}),
        (4.5, {"id": "int6", "use": "quantize.weight_only", "bits": 6}),
        (6.5, {"id": "int4", "use": "quantize.weight_only", "bits": 4, "group_size": 32, "method": "gptq"}),
        (7.5, {"id": "int4", "use": "quantize.weight_only", "bits": 4, "method": "gptq"}),
    ],
)
def test_the_mildest_way_that_is_small_enough_is_taken(smaller, expected):
    made = chosen(LABELLED, smaller=smaller)
    assert made.tables["pass"][0] == expected
    assert uses(made) == [expected["use"], "export.packed"]


def test_very_few_bits_are_trained_where_labels_are_and_rounded_where_they_are_not():
    trained = chosen(LABELLED, smaller=10).tables["pass"][0]
    assert trained["use"] == "train.supervised"
    assert [one["use"] for one in trained["with"]] == ["distill.logits", "quantize.qat"]
    assert chosen(UNLABELLED, smaller=10).tables["pass"][0]["method"] == "gptq"
    assert chosen(ALONE, smaller=10).tables["pass"][0]["method"] == "hqq"


def test_channels_go_only_where_no_number_of_bits_is_small_enough():
    made = chosen(LABELLED, smaller=40)
    assert uses(made) == ["prune.channels", "train.supervised", "quantize.weight_only", "export.packed"]
    assert 0.7 < made.tables["pass"][0]["amount"] < 0.9


def test_what_no_rule_reaches_is_warned_of_and_tried():
    made = chosen(replace(LABELLED, prunable=False), smaller=40)
    assert "about" in made.warnings[0]
    assert made.tables["pass"][0]["with"][1]["bits"] == 2


def test_fewer_macs_remove_channels_and_repair_by_what_the_data_has():
    assert uses(chosen(LABELLED, fewer_macs=2)) == ["prune.channels", "train.supervised", "export.packed"]
    assert uses(chosen(UNLABELLED, fewer_macs=2))[1] == "repair.least_squares"
    assert uses(chosen(ALONE, fewer_macs=2)) == ["prune.channels", "export.packed"]
    assert chosen(LABELLED, fewer_macs=2).tables["pass"][0]["amount"] == 0.5


def test_an_untrained_model_is_trained_first_and_compared_with_that():
    untrained = replace(LABELLED, accuracy=0.12)
    made = chosen(untrained, smaller=4, points=1)
    assert uses(made)[0] == "train.supervised"
    assert made.tables["pass"][0]["epochs"] == 20
    assert made.tables["gate"]["accuracy"] == {"max_drop": 0.01, "against": "dense"}
    assert made.tables["gate"]["bytes"] == {"max_ratio": 0.25, "against": "original"}
    trained = chosen(LABELLED, smaller=4, points=1)
    assert trained.tables["gate"]["accuracy"]["against"] == "original"


def test_a_model_that_always_says_the_commonest_of_uneven_classes_is_untrained():
    assert replace(LABELLED, accuracy=0.951, guessing=0.95).untrained
    assert not replace(LABELLED, accuracy=0.96, guessing=0.95).untrained


def test_a_gate_is_never_softer_than_the_goal():
    for factor in (1.1, 3, 7, 13.37, 300):
        assert chosen(LABELLED, smaller=factor).tables["gate"]["bytes"]["max_ratio"] <= 1 / factor


EVERYWHERE = {"onnx": "export.onnx", "openvino": "export.openvino"}


@pytest.mark.parametrize(
    ("changes", "integers", "last", "runtime"),
    [
        ({"convolutions": True}, ["quantize.static", "quantize.edges"], ["export.openvino"], "openvino"),
        ({"convolutions": False}, ["quantize.dynamic"], ["export.onnx"], "onnx"),
        (
            {"convolutions": True, "splits": frozenset({"test"})},
            ["quantize.dynamic"],
            ["export.onnx"],
            "onnx",
        ),
        ({"runtimes": {}, "compiles": True}, ["quantize.dynamic"], [], "inductor"),
        ({"runtimes": {}}, ["quantize.dynamic"], [], "eager"),
        (
            {"runtimes": {"onnx": "export.onnx"}, "convolutions": True},
            ["quantize.static", "quantize.edges"],
            ["export.onnx"],
            "onnx",
        ),
    ],
)
def test_a_shorter_time_comes_from_integers_in_a_runtime_that_is_here(changes, integers, last, runtime):
    made = chosen(replace(LABELLED, **{"runtimes": EVERYWHERE, **changes}), faster=2.5)
    assert uses(made) == [*integers, *last, "evaluate.latency", "export.packed"]
    assert made.tables["pass"][-2]["runtimes"] == [runtime]
    assert made.tables["gate"] == {f"speedup_{runtime}_b1": {"min": 2.5}}
    assert bool(made.warnings) is not bool(last)


def test_what_is_to_be_fast_and_smaller_than_8_bits_loses_channels():
    fast = replace(LABELLED, runtimes=EVERYWHERE)
    assert uses(chosen(fast, faster=2, smaller=3.5))[0] == "quantize.dynamic"
    made = chosen(fast, faster=2, smaller=8)
    assert uses(made)[:3] == ["prune.channels", "train.supervised", "quantize.dynamic"]
    assert 0.4 < made.tables["pass"][0]["amount"] < 0.6
    assert "about" in chosen(replace(fast, prunable=False), faster=2, smaller=8).warnings[0]


@pytest.mark.parametrize("facts", [LABELLED, UNLABELLED, ALONE], ids=["labelled", "unlabelled", "alone"])
@pytest.mark.parametrize("smaller", [2, 4, 7.5, 10, 40, 900])
@pytest.mark.parametrize("macs", [None, 3])
@pytest.mark.parametrize("faster", [None, 2])
def test_what_is_drafted_is_a_recipe_that_checks(facts, smaller, macs, faster):
    facts = replace(facts, accuracy=facts.accuracy and 0.1, runtimes=EVERYWHERE, convolutions=smaller > 4)
    made = draft(facts, Goal(smaller, macs, 1 if facts.labels else None, faster), SOURCES)
    text = written(made.tables, made.comments)
    assert load_recipe(parse(text, "quick.toml").plain()) == load_recipe(made.tables)
    check(load_recipe(made.tables), discover(), Given(later=True))
    assert text.startswith("# Written by")
    assert text.count("\n# ") >= len(made.tables["pass"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.words())
def test_the_size_that_is_counted_is_the_size_that_comes_out(way):
    """The counting of `Way.bytes` against the real passes on a real network."""
    import torch
    from torch import nn

    import demiglace

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(200, 96), nn.Linear(96, 4)
    )
    shapes = [one for one in net.parameters() if one.dim() > 1]
    tensors = [*net.parameters(), *net.buffers()]
    facts = Facts(
        weights=tuple(Weight(len(one), one[0].numel(), one.nbytes) for one in shapes),
        bytes=sum(one.nbytes for one in tensors),
        float_bytes=sum(one.nbytes for one in tensors if one.is_floating_point()),
    )
    cast = {"use": "quantize.cast"}
    step = (
        cast if way.bits == 16 else {"use": "quantize.weight_only", "bits": way.bits, "group_size": way.group}
    )
    result = demiglace.run(
        {"pass": [{key: value for key, value in step.items() if value is not None}]}, model=net
    )
    assert result.metrics["bytes"] == pytest.approx(way.bytes(facts), rel=0.01)
