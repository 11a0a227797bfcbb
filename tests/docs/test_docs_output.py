import pytest
from docs_output import difference


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a   b\n\nc", "a b\nc\n"),
        ("fit 90.60 %  1.9", "fit 91.90 %  7.2"),
        ("dense: 1.9 s", "dense: 120.4 s"),
        ("gate passed: 0.917, was 0.906", "gate passed: 0.921, was 0.899"),
        ("first\n...\nlast", "first\none\ntwo\nlast"),
        ("hint: ...; and more", "hint: all of this; and more"),
        ("version 0.1.0", "version 0.1.0"),
    ],
)
def test_what_may_differ_is_no_difference(shown, printed):
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("235 k", "236 k"),
        ("sparsity 30.0 %", "sparsity 29.8 %"),
        ("accuracy 90.60 %", "accuracy 75.00 %"),
        ("gate passed: 0.917", "gate MISSED: 0.917"),
        ("first\nlast", "first\nmiddle\nlast"),
        ("first\nlast", "first"),
        ("version 0.1.0", "version 0.2.0"),
        ("", "something"),
    ],
)
def test_what_may_not_differ_is_told(shown, printed):
    assert difference(shown, printed)
