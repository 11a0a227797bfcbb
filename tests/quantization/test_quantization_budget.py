"""`budget`: bits for each weight where they serve the outputs, within a mean."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import demiglace
from demiglace.errors import GraphError, RecipeError
from demiglace_quantizers._bits import _allotted, _Choice

VALUES = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))


def _made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).eval()


def _run(module, **options):
    recipe = {"pass": [{"use": "quantize.weight_only", **options}]}
    before = module(VALUES).detach()
    result = demiglace.run(recipe, model=module, data=[VALUES], example_inputs=VALUES[:2])
    return float((module(VALUES).detach() - before).square().mean()), result.record.steps[0]


def _stored(step):
    """Bits of all weights, and for how many elements."""
    sizes = {"0.weight": 32 * 64, "2.weight": 64 * 64, "4.weight": 64 * 8}
    rows = step.figures["quantized"]
    return sum(row["stored_bits"] * sizes[row["weight"]] for row in rows) / sum(sizes.values())


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("budget", [2.8, 4.0, 5.5, 8.0])
def test_all_weights_together_stay_within_the_budget_and_use_it(budget, method):
    _, step = _run(_made(), budget=budget, method=method)
    assert budget - 0.6 < _stored(step) <= budget
    assert f"{budget} bits a weight with scales" in step.words


def test_a_budget_serves_the_outputs_better_than_the_same_bits_for_all():
    module = _made()
    with torch.no_grad():
        module[2].weight *= 0.05  # hardly any of what comes from there is left
        module[4].weight *= 4
    alike, step = _run(module, bits=4)
    module = _made()
    with torch.no_grad():
        module[2].weight *= 0.05
        module[4].weight *= 4
    shared, other = _run(module, budget=_stored(step) + 0.01)
    bits = {row["weight"]: row["bits"] for row in other.figures["quantized"]}
    assert shared < 0.6 * alike
    assert bits["4.weight"] > bits["0.weight"]


def test_a_weight_that_layers_share_has_one_choice_and_counts_once():
    torch.manual_seed(0)
    words, head = nn.Embedding(40, 16), nn.Linear(16, 40, bias=False)
    head.weight = words.weight
    module, ids = nn.Sequential(words, nn.Linear(16, 16), head).eval(), torch.arange(40).view(4, 10)
    recipe = {"pass": [{"use": "quantize.weight_only", "budget": 5.0}]}
    step = demiglace.run(recipe, model=module, data=[ids], example_inputs=ids[:2]).record.steps[0]
    bits = {row["weight"]: row["bits"] for row in step.figures["quantized"]}
    assert bits["0.weight"] == bits["2.weight"]
    assert module[0].weight_codes.data_ptr() == module[2].weight_codes.data_ptr()


def choices(counts, damages):
    """For each group its size, and what it damages at 2, 3, ... bits."""
    return [
        [_Choice(2 + at, count * (2 + at), one) for at, one in enumerate(own)]
        for count, own in zip(counts, damages, strict=True)
    ]


def test_a_group_of_half_the_weights_gets_its_step_rather_than_what_gains_most_for_a_bit():
    # By gain for a bit a small group comes first; the large one's step does not fit any more then.
    offered = choices([100, 50, 50], [[1000.0, 300.0], [400.0, 0.0], [60.0, 10.0]])
    assert _allotted(offered, 200, 2.5) == [3, 2, 2]
    assert _allotted(offered, 200, 2.74) == [3, 2, 2]
    assert _allotted(offered, 200, 2.75) == [3, 3, 2]


@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.lists(st.floats(0, 9), min_size=1, max_size=4)),
        min_size=1,
        max_size=5,
    ),
    st.floats(2, 6),
)
@settings(deadline=None)
def test_no_other_bits_within_the_budget_damage_less(groups, budget):
    counts = [count for count, _ in groups]
    offered = choices(counts, [sorted(own, reverse=True) for _, own in groups])

    def totals(budget):
        """What each way to spend the budget damages."""
        room = budget * sum(counts)
        ways = itertools.product(*offered)
        return [sum(x.damage for x in way) for way in ways if sum(x.stored for x in way) <= room]

    bits = _allotted(offered, sum(counts), budget)
    taken = [own[at - 2] for own, at in zip(offered, bits, strict=True)]
    assert sum(one.stored for one in taken) <= budget * sum(counts) + 1e-6
    # What is stored is rounded up to a small share of what may be.
    assert sum(one.damage for one in taken) <= min(totals(2 + (budget - 2) * 0.999)) + 1e-9


def test_a_budget_that_two_bits_exceed_says_what_they_take():
    with pytest.raises(
        GraphError, match=r"2 bits for each weight take 2\.\d+ with scales, over the budget of 2\.1"
    ):
        _run(_made(), budget=2.1)


def test_bits_and_a_budget_together_and_a_budget_without_data_are_refused():
    both = {"pass": [{"use": "quantize.weight_only", "bits": 8, "budget": 4.0}]}
    with pytest.raises(RecipeError, match="give `bits` or a `budget`, not both"):
        demiglace.check(both)
    alone = {
        "model": {"use": "mlp", "widths": [4, 2]},
        "pass": [{"use": "quantize.weight_only", "budget": 4.0}],
    }
    with pytest.raises(RecipeError, match=r"needs data\.calibration"):
        demiglace.check(alone)
