"""Masks of torch.nn.utils.prune that arrive with a model."""

import torch
from torch import nn
from torch.nn.utils import prune

from demiglace.graph import ModelGraph, adopt_masks


def pruned():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    prune.l1_unstructured(module[0], "weight", 0.5)
    prune.random_unstructured(module[0], "bias", 2)
    prune.ln_structured(module[2], "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(module[2], "weight", 0.2)
    return module


def test_a_pruned_model_becomes_plain_parameters_and_masks_and_computes_the_same():
    module, inputs = pruned(), torch.randn(3, 6)
    before = module(inputs)
    masks = adopt_masks(module)
    assert set(masks) == {"0.weight", "0.bias", "2.weight"}
    assert set(module.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any(child._forward_pre_hooks for child in module.modules())
    assert torch.equal(module(inputs), before)


def test_the_adopted_masks_say_which_weights_are_zero():
    module = pruned()
    masks = adopt_masks(module)
    for name, keep in masks.items():
        assert keep.dtype == torch.bool
        assert torch.equal(module.get_parameter(name) != 0, keep)
    assert ModelGraph(module, masks=masks).masks["0.bias"].sum() == 3


def test_a_model_that_was_not_pruned_stays_as_it_is():
    module = nn.Linear(3, 3)
    weight = module.weight
    assert adopt_masks(module) == {}
    assert module.weight is weight


def test_a_bare_layer_is_adopted():
    module = nn.Conv2d(2, 3, 3)
    prune.l1_unstructured(module, "weight", 10)
    assert int((~adopt_masks(module)["weight"]).sum()) == 10


def test_a_shared_parameter_gets_the_masks_of_all_who_pruned_it():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    prune.custom_from_mask(first, "weight", torch.ones(4, 4).triu())
    prune.custom_from_mask(second, "weight", torch.ones(4, 4).tril())
    module = nn.Sequential(first, second)
    masks = adopt_masks(module)
    assert torch.equal(masks["0.weight"], torch.eye(4, dtype=torch.bool))
    assert module[0].weight is module[1].weight
