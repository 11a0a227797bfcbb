"""A gate's verdict, and how sure it is."""

from __future__ import annotations

import pytest
import torch

from demiglace.engine.gates import judge
from demiglace.passes import Metric
from demiglace.recipe import Gate


def shares(right: int, of: int) -> Metric:
    hits = torch.zeros(of)
    hits[:right] = 1
    return Metric(right / of, True, "share", of, hits)


def test_an_absolute_bound_that_is_far_away_is_decided():
    verdict = judge("accuracy", Gate(min=0.5), shares(950, 1000), None)
    assert verdict.passed
    assert verdict.decided
    assert verdict.interval == pytest.approx((0.9347, 0.9618), abs=1e-3)


def test_a_bound_within_the_sample_error_is_judged_but_called_undecided():
    verdict = judge("accuracy", Gate(min=0.94), shares(95, 100), None)
    assert verdict.passed
    assert not verdict.decided
    assert "too small to decide" in str(verdict)


def test_a_drop_is_judged_by_pairs_so_that_shared_mistakes_do_not_count():
    # 60 % accuracy: unpaired, 1,000 examples could not tell a drop of 0.2 points from one of 3.
    reference = shares(600, 1000)
    hits = reference.per_example.clone()
    hits[:2] = 0
    final = Metric(0.598, True, "share", 1000, hits)
    verdict = judge("accuracy", Gate(max_drop=0.01, against="dense"), final, reference)
    assert verdict.passed
    assert verdict.decided


def test_a_missed_gate_says_both_values():
    verdict = judge("accuracy", Gate(max_drop=0.01, against="dense"), shares(800, 1000), shares(900, 1000))
    assert not verdict.passed
    assert verdict.decided
    assert str(verdict).startswith("gate MISSED: accuracy")
    assert "was 0.9" in str(verdict)


def test_exact_figures_are_always_decided():
    verdict = judge("bytes", Gate(max=1000.0), Metric(999), None)
    assert verdict.passed
    assert verdict.decided
    assert verdict.interval is None
