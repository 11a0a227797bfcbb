"""What is said of a goal that was met or missed."""

import pytest

from demiglace.engine.gates import Verdict
from demiglace.quick import Goal, bounds


def verdict(metric, value, reference, passed, *, decided=True):
    return Verdict(metric, "", value, reference, passed, decided)


@pytest.mark.parametrize(
    ("goal", "judged", "said"),
    [
        (Goal(smaller=4), verdict("bytes", 20, 100, True), "goal met: 4x smaller: 5.00x"),
        (
            Goal(smaller=4),
            verdict("bytes", 50, 100, False),
            "goal MISSED: 4x smaller: 2.00x, 100.0 % too large",
        ),
        (Goal(fewer_macs=2), verdict("macs", 50, 100, True), "goal met: 2x fewer macs: 2.00x"),
        (Goal(faster=2), verdict("speedup_onnx_b1", 3.0, None, True), "goal met: 2x faster: 3.00x"),
        (
            Goal(faster=2),
            verdict("speedup_onnx_b1", 1.6, None, False),
            "goal MISSED: 2x faster: 1.60x, 25.0 % too slow",
        ),
        (Goal(points=1), verdict("accuracy", 0.90, 0.905, True), "goal met: <= 1 point: 0.50 points lost"),
        (Goal(points=1), verdict("accuracy", 0.92, 0.90, True), "goal met: <= 1 point: 2.00 points gained"),
        (
            Goal(points=1),
            verdict("accuracy", 0.88, 0.90, False, decided=False),
            "goal MISSED: <= 1 point: 2.00 points lost, 1.00 too many (the sample is too small to decide)",
        ),
    ],
)
def test_each_bound_is_told_in_its_own_words(goal, judged, said):
    assert [str(one) for one in bounds(goal, [judged])] == [said]


def test_a_gate_that_was_taken_out_of_the_recipe_has_no_bound():
    [bound] = bounds(Goal(smaller=4, points=1), [verdict("bytes", 20, 100, True)])
    assert bound.asked == "4x smaller"
