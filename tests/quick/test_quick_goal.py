"""What `--goal` may say, and where a fault of it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demiglace.errors import UsageError
from demiglace.quick import Goal, parse_goal

FACTORS = st.none() | st.integers(11, 99990).map(lambda n: n / 100).filter(lambda n: 1 < n <= 1000)


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("4x smaller", Goal(smaller=4)),
        ("4x smaller, <= 1 point", Goal(smaller=4, points=1)),
        ("  4X  Smaller ,<=0.5points", Goal(smaller=4, points=0.5)),
        ("1 point, 2.5x fewer  MACs", Goal(fewer_macs=2.5, points=1)),
        ("4× smaller, 0 points", Goal(smaller=4, points=0)),
        ("1.5x  Faster, 4x smaller", Goal(smaller=4, faster=1.5)),
    ],
)
def test_what_a_goal_says(text, goal):
    assert parse_goal(text) == goal


@given(FACTORS, FACTORS, st.none() | st.integers(0, 1000).map(lambda n: n / 10), FACTORS)
def test_a_goal_that_is_written_down_reads_the_same(smaller, fewer, points, faster):
    goal = Goal(smaller, fewer, points, faster)
    if smaller is None and fewer is None and faster is None:
        with pytest.raises(UsageError):
            parse_goal(str(goal))
    else:
        assert parse_goal(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("4x smaler", [1], "no bound"),
        ("4x smaller, 5 dots", [13], "no bound"),
        ("big, 4x smaller,  <= 1 pint", [1, 19], "no bound"),
        ("4x smaller, ", [12], "missing"),
        ("", [1], "missing"),
        ("4x smaller, 3x smaller", [13], "second time"),
        ("1x smaller", [1], "above 1"),
        ("0.9x faster, 2 faster", [1, 14], "above 1"),
        ("2000x smaller", [1], "at most 1000"),
        ("4x smaller, 101 points", [13], "100 points"),
        ("<= 4x smaller", [1], "no bound"),
        ("1 point", [1], "not what to reach"),
        ("4x smaller\n, 2x", [14], "no bound"),
    ],
)
def test_every_fault_has_its_place(text, columns, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_goal(text)
    assert [fault.place.column for fault in caught.value.faults] == columns
    assert all(fault.place.file == "--goal" for fault in caught.value.faults)


@given(st.text(max_size=30))
def test_any_text_is_a_goal_or_one_clear_error(text):
    try:
        parse_goal(text)
    except UsageError as error:
        found = error
    else:
        return
    assert all(fault.message and str(fault) for fault in found.faults)
