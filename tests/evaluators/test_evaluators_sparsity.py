"""`evaluate.sparsity`: zeros as they act, whatever holds them."""

from __future__ import annotations

import torch
from torch import nn

from demiglace.graph import Mask, ModelGraph, apply
from demiglace.passes import Context
from demiglace_evaluators.sparsity import Sparsity, SparsityConfig

HALF = torch.arange(40).view(4, 10) % 2 == 0


def net() -> ModelGraph:
    torch.manual_seed(0)
    return ModelGraph(nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 6)))


def measured(model: ModelGraph, **options) -> dict[str, float]:
    found = Sparsity(SparsityConfig(**options)).measure(model, Context(seed=0, device=torch.device("cpu")))
    return {name: metric.value for name, metric in found.items()}


def test_a_dense_net_has_none():
    assert measured(net()) == {"sparsity": 0.0, "sparsity_pruned_layers": 0.0}


def test_masks_count_over_the_net_the_pruned_layers_and_each_layer():
    model = net()
    apply(model, [Mask("0.weight", HALF)]).commit()
    parameters = 40 + 4 + 24 + 6
    expected = {"sparsity": 20 / parameters, "sparsity_pruned_layers": 0.5, "sparsity.0.weight": 0.5}
    assert measured(model) == expected


def test_a_mask_counts_even_where_the_weight_is_not_zero_yet():
    model = net()
    model.masks["0.weight"] = HALF
    assert measured(model)["sparsity_pruned_layers"] == 0.5


def test_zeros_without_masks_count_too():
    model = net()
    with torch.no_grad():
        model.module[1].weight[:, 0] = 0
        model.module[0].bias.zero_()  # a bias is no pruned layer
    found = measured(model, per_layer=False)
    assert found == {"sparsity": 10 / 74, "sparsity_pruned_layers": 0.25}


def test_zeros_of_a_quantized_model_count():
    import torch
    from torch import nn

    import demiglace

    torch.manual_seed(0)
    passes = [
        {"use": "prune.magnitude", "amount": 0.5},
        {"use": "prune.finalize"},
        {"use": "quantize.weight_only", "bits": 8},
        {"use": "evaluate.sparsity"},
    ]
    result = demiglace.run(
        {"pass": passes}, model=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    )
    assert result.metrics["sparsity_pruned_layers"] >= 0.5
    assert result.metrics["sparsity.0.weight"] > 0
