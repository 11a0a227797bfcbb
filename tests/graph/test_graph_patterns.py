"""Every pattern is right to the index, or declined with a reason."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from graph_toys import TOYS

from demiglace.graph import Example, ModelGraph
from demiglace.graph.cut import removal_edits
from demiglace.graph.groups import Group
from demiglace.graph.restructure import apply_verified


@cache
def graph_of(name: str) -> ModelGraph:
    """Traced once; every test leaves it as it was."""
    torch.manual_seed(0)
    toy = TOYS[name]
    return ModelGraph(toy.net(), Example(toy.example()))


def random_units(group: Group, share: float = 0.5) -> torch.Tensor:
    count = min(group.units - 1, max(1, round(group.units * share)))
    return torch.randperm(group.units, generator=torch.Generator().manual_seed(1))[:count]


def indices_of(group: Group) -> dict[tuple[str, int], list[list[int]]]:
    return {(one.tensor, one.dim): one.index.tolist() for one in group.slices}


@pytest.mark.parametrize("name", [name for name, toy in TOYS.items() if toy.units])
def test_units_hold_the_indices_that_were_worked_out_by_hand(name):
    toy, model = TOYS[name], graph_of(name)
    first = next(iter(toy.slices))
    wanted = sorted(toy.slices[first](0))
    group = next(g for g in model.traced.groups if wanted in indices_of(g).get(first, []))
    found = indices_of(group)
    assert group.units == toy.units
    for place, expected in toy.slices.items():
        assert sorted(map(sorted, found[place])) == sorted(sorted(expected(u)) for u in range(toy.units)), (
            place
        )
    # Units line up: what goes with the first tensor's indices in one slice goes with them in all.
    units = {tuple(sorted(index)): at for at, index in enumerate(found[first])}
    for u in range(toy.units):
        at = units[tuple(sorted(toy.slices[first](u)))]
        for place, expected in toy.slices.items():
            assert sorted(found[place][at]) == sorted(expected(u)), place


@pytest.mark.parametrize("name", TOYS)
def test_a_cut_of_every_group_is_verified_and_trains(name):
    toy, model = TOYS[name], graph_of(name)
    shapes = [one.shape for one in outputs(model)]
    groups = model.traced.groups
    before = sum(parameter.numel() for parameter in model.module.parameters())
    transaction, verified = apply_verified(
        model, removal_edits(model, [(group, random_units(group)) for group in groups])
    )
    assert [one.shape for one in outputs(model)] == shapes
    assert (verified is None) == (not groups)
    if verified is not None:
        assert verified.error <= verified.tolerance
        assert len(verified.batch_sizes) == 2
        assert sum(parameter.numel() for parameter in model.module.parameters()) < before
    if toy.form and verified is not None:
        assert verified.form == toy.form, verified.reason
    model.module.train()
    result = model.module(*toy.example())
    leaf = result[0] if isinstance(result, tuple) else result
    leaf.sum().backward()
    transaction.rollback()
    assert sum(parameter.numel() for parameter in model.module.parameters()) == before


def outputs(model: ModelGraph) -> list[torch.Tensor]:
    with torch.no_grad():
        result = model.module.eval()(*model.example.args)
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", [name for name, toy in TOYS.items() if toy.declined])
def test_what_is_left_alone_says_why(name):
    frozen = graph_of(name).traced.frozen
    for place, reason in TOYS[name].declined.items():
        assert reason in frozen[place]
