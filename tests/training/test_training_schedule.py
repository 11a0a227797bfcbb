"""Schedules: when an editor acts, and how much it has done by then."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from demiglace.errors import UsageError
from demiglace.passes import Schedule, moment_steps

SHAPES = ["cubic", "linear", "exponential"]
shares = st.floats(0, 1)


@given(
    st.sampled_from(SHAPES), shares, shares, shares, shares, shares, st.integers(1, 300), st.integers(1, 40)
)
def test_amounts_rise_from_initial_to_full_within_the_training(
    shape, one, other, every, initial, full, steps, per_epoch
):
    initial, full = sorted((initial, full))
    begin, end = sorted((one, other))
    schedule = Schedule(shape=shape, begin=begin, end=end, every=every, initial=initial)
    points = schedule.points(steps, per_epoch)
    assert points == sorted(set(points))
    assert points[0] >= 0
    assert points[-1] == min(round(end * steps), steps - 1)
    amounts = [schedule.amount(point, points, full) for point in points]
    assert amounts[-1] == full
    if len(points) > 1:
        assert amounts[0] == pytest.approx(initial)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(amounts))


def test_the_cubic_shape_is_zhu_and_guptas():
    schedule = Schedule(begin="100 steps", end="500 steps", every="100 steps", initial=0.1)
    points = schedule.points(1000, 50)
    assert points == [100, 200, 300, 400, 500]
    expected = [0.9 + (0.1 - 0.9) * (1 - k / 4) ** 3 for k in range(5)]
    assert [schedule.amount(point, points, 0.9) for point in points] == pytest.approx(expected)


def test_the_exponential_shape_takes_the_same_share_of_what_is_left():
    schedule = Schedule(shape="exponential", end=1.0, every=0.25)
    points = schedule.points(101, 10)
    left = [1 - schedule.amount(point, points, 0.9375) for point in points]
    ratios = [b / a for a, b in itertools.pairwise(left)]
    assert ratios[:3] == pytest.approx([0.5] * 3, rel=0.02)


@pytest.mark.parametrize(("steps", "between"), [(100, 20), (400, 20), (2000, 40)])
def test_unless_told_changes_are_two_percent_of_the_training_apart_and_twenty_steps(steps, between):
    points = Schedule(end=0.5).points(steps, steps)
    assert points == [*range(0, steps // 2, between), steps // 2]


def test_one_shot_acts_once():
    assert Schedule(shape="one_shot", begin="2 epochs").points(100, 20) == [40]


@pytest.mark.parametrize(
    ("moment", "steps"), [(0.25, 50), ("3 epochs", 60), ("1 epoch", 20), ("7 steps", 7), ("0.5 epochs", 10)]
)
def test_moments_in_each_unit(moment, steps):
    assert moment_steps(moment, 200, 20) == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 1}, '"1 epochs"'),
        ({"begin": "soon"}, "no moment"),
        ({"begin": "-1 epochs"}, "no moment"),
        ({"begin": True}, "begin"),
        ({"end": 1.5}, "less than or equal to 1"),
        ({"end": float("nan")}, "end"),
        ({"begin": 0.5, "end": 0.25}, "before it begins"),
        ({"begin": "3 epochs", "end": "2 epochs"}, "before it begins"),
        ({"shape": "square"}, "shape"),
        ({"ends": 0.5}, "ends"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": "3 epochs", "end": 0.1}, "before it begins"),
        ({"end": "30 epochs"}, "ends at 30 epochs, after the end"),
        ({"shape": "one_shot", "begin": "300 steps"}, "begins at 300 steps, after the end"),
    ],
)
def test_a_schedule_that_does_not_fit_the_training_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Schedule.model_validate(options).points(200, 20)


def test_a_schedule_says_what_it_does():
    words = Schedule(begin="2 epochs", every="10 steps").words()
    assert words == "cubic schedule from 0% at 2 epochs to the full amount at 70% of training, every 10 steps"
