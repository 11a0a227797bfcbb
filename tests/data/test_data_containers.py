"""Containers of what models take and return: all leaves are found, and copies keep their type."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from demiglace.data import as_batch, leaves, mapped, plain

Pair = namedtuple("Pair", "first second")


class Attributes(dict):
    """Keys as attributes, `None` for those that are not there."""

    __getattr__ = dict.get


@dataclass(frozen=True)
class Frozen:
    first: object
    second: object


@dataclass(slots=True)
class Slotted:
    first: object
    second: object


MADE = [
    lambda a, b: (a, b),
    lambda a, b: [a, b],
    Pair,
    lambda a, b: {"first": a, "second": b},
    lambda a, b: Attributes(first=a, second=b),
    lambda a, b: UserDict(first=a, second=b),
    lambda a, b: SimpleNamespace(first=a, second=b),
    Frozen,
    Slotted,
]


@pytest.mark.parametrize("outer", MADE)
@pytest.mark.parametrize("inner", MADE)
def test_containers_in_containers_are_changed_leaf_by_leaf_in_copies(outer, inner):
    value = outer(inner(1, "two"), None)
    changed = mapped(lambda one: one * 2 if isinstance(one, int) else one, value)
    assert list(leaves(value)) == [1, "two", None]
    assert list(leaves(changed)) == [2, "two", None]
    assert type(changed) is type(value)


def test_a_mapping_that_cannot_be_written_is_changed_into_a_dict():
    value = MappingProxyType({"first": 1})
    assert mapped(lambda one: one + 1, value) == {"first": 2}
    assert dict(value) == {"first": 1}


@pytest.mark.parametrize("made", MADE)
def test_no_container_hides_tensors_from_the_trees_of_torch(made):
    tensor = torch.ones(2)
    assert any(one is tensor for one in tree_leaves(plain([made(made(tensor, 1), 2)])))


@pytest.mark.parametrize("made", MADE)
def test_a_batch_counts_and_moves_what_its_inputs_hold(made):
    batch = as_batch((made(torch.ones(3, 2), torch.ones(3)), torch.zeros(3)))
    assert len(batch) == 3
    assert [one.device.type for one in batch.to("meta").inputs()] == ["meta", "meta"]
    assert [one.device.type for one in batch.inputs()] == ["cpu", "cpu"]
