"""A recipe written back to TOML is the same recipe."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.recipe import dumps, load_recipe
from demiglace.recipe.toml import parse

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.one_of(
        TEXTS,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.dictionaries(
    TEXTS.filter(lambda key: key not in {"use", "id", "with", "allow_noop", "recipe"}), VALUES
)


@settings(max_examples=100, deadline=None)
@given(OPTIONS, OPTIONS, st.lists(OPTIONS, max_size=2), TEXTS.filter(bool))
def test_what_is_written_loads_to_the_same_recipe(model, step, participants, name):
    placing = {"before", "after", "remove"}
    inner = [{"use": "b.y", **{k: v for k, v in one.items() if k not in placing}} for one in participants]
    outer = {"use": "a.x", "with": inner, **{k: v for k, v in step.items() if k not in placing}}
    nested = {"recipe": {"pass": [{"use": "c"}]}}
    recipe = load_recipe(
        {"name": name, "pass": [outer, {"use": "a.x"}], "model": {"use": "m", **model}, "teacher": nested}
    )
    assert load_recipe(parse(dumps(recipe), "r.toml").plain()) == recipe
