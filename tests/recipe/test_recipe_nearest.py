"""The nearest known names."""

from __future__ import annotations

import pytest

from demiglace.recipe import did_you_mean, nearest

PASSES = ["prune.magnitude", "prune.random", "train.supervised", "evaluate.classification"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("prune.magnitud", "prune.magnitude"),
        ("magnitude", "prune.magnitude"),
        ("Prune.Magnitude", "prune.magnitude"),
        ("train.supervized", "train.supervised"),
        ("classificaton", "evaluate.classification"),
    ],
)
def test_a_misspelt_name_finds_the_one_that_was_meant(name, first):
    assert nearest(name, PASSES)[0] == first


def test_what_is_near_to_nothing_lists_what_there_is():
    assert nearest("xyz", PASSES) == []
    assert did_you_mean("xyz", ["b", "a"]) == "known names: a, b"
    assert did_you_mean("xyz", []) is None
    assert did_you_mean("-", [f"n{i:02}" for i in range(14)]).endswith("n10, n11 and 2 more")


def test_several_near_names_come_nearest_first():
    assert did_you_mean("abcd", ["abce", "abcd1", "zzz"]) == "did you mean `abcd1` or `abce`?"
