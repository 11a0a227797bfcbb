"""Sections near their entropy, small headers, and the ratios that plain tensors reach."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact import SourceOrigin
from demiglace.artifact.inspection import inspect
from demiglace.artifact.packed import pack
from demiglace.graph import ModelGraph, apply
from demiglace.quantization import Scheme, round_weight, weight_only_swap

BARS = {
    "bfloat16": (0.72, lambda x: x.bfloat16()),
    "float32": (0.88, lambda x: x),
    "float16": (0.95, lambda x: x.half()),
    "sparse": (0.15, lambda x: x * (torch.rand(x.shape) > 0.9)),
    "bfloat16 in float32": (0.36, lambda x: x.bfloat16().float()),
}


@pytest.mark.parametrize("name", BARS)
def test_plain_tensors_reach_their_ratio(name, packed, gaussian):
    bar, made = BARS[name]
    tensor = made(gaussian(500, 400))
    assert packed(t=tensor)[0].bytes <= bar * tensor.nbytes


@pytest.mark.parametrize("count", [30, 1_000, 20_000, 300_000])
@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
def test_integers_take_their_entropy_and_little_more(count, spread, tmp_path, gaussian):
    from packed_models import Holder

    codes = (gaussian(count) * spread).round().clamp(-127, 127).to(torch.int8)
    path = tmp_path / "m.dgz"
    pack(ModelGraph(Holder(t=codes)), path, origin=SourceOrigin("x"))
    (report,) = inspect(path).tensors
    assert report.bytes <= 1.01 * report.entropy * count / 8 + 64


@pytest.mark.parametrize(("rows", "columns"), [(32, 9), (144, 25), (480, 9), (240, 40)])
def test_small_layers_whose_largest_weights_set_the_scales_do_too(rows, columns, tmp_path, gaussian):
    """In each row one weight is -127 or 127, far more than what is next to them."""
    model, path = nn.Sequential(nn.Linear(columns, rows)), tmp_path / "m.dgz"
    weight = round_weight(gaussian(rows, columns), Scheme(8), clip=False)
    graph = ModelGraph(model)
    apply(graph, [weight_only_swap("0", model[0], {"weight": weight})]).commit()
    pack(graph, path, origin=SourceOrigin("x"))
    report = next(one for one in inspect(path).tensors if one.name == "0.weight_codes")
    assert report.bytes <= 1.01 * report.entropy * report.elements / 8 + 64


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_sparse_integers_take_their_entropy_and_little_more(sparsity, tmp_path, gaussian):
    from packed_models import Holder

    codes = (gaussian(300, 400) * 3).round() * (torch.rand(300, 400) > sparsity)
    for dtype in (torch.int8, torch.float32):
        path = tmp_path / "m.dgz"
        pack(ModelGraph(Holder(t=codes.to(dtype))), path, origin=SourceOrigin("x"))
        (report,) = inspect(path).tensors
        assert report.bytes <= 1.01 * report.entropy * codes.numel() / 8 + 64


def test_a_mask_that_its_zeros_tell_takes_next_to_nothing(packed, gaussian):
    model = nn.Linear(300, 200)
    keep = torch.rand(200, 300) > 0.8
    with torch.no_grad():
        model.weight.mul_(keep)
    _, back = packed(model, masks={"weight": keep})
    assert back.stored["mask:weight"].bytes < 32


def test_the_header_of_a_large_network_is_small(tmp_path):
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.resnet50()
    model.to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.zero_()
    path = tmp_path / "m.dgz"
    written = pack(ModelGraph(model), path, origin=SourceOrigin("torchvision", {"name": "resnet50"}))
    blocks = sum(one.bytes for one in inspect(path).tensors)
    assert written.bytes - blocks <= 1536


@pytest.mark.slow
def test_level_max_comes_below_the_entropy_of_trained_sparse_weights(tmp_path):
    """All tensors together take 0.92 of their order-0 entropy, and 64 bytes each, on real digits."""
    cosine = {"optimizer": {"name": "Adam", "lr": 2e-3}, "scheduler": "CosineAnnealingLR"}
    shrink = [
        {"use": "prune.magnitude", "amount": 0.98, "schedule": {"end": 0.5}},
        {"use": "share.kmeans", "clusters": 6},
    ]
    recipe = {
        "name": "sections",
        "model": {"use": "lenet", "variant": "lenet-300-100"},
        "data": {"use": "mnist5k", "batch_size": 128},
        "pass": [
            {"use": "train.supervised", "epochs": 8, **cosine},
            {"use": "train.supervised", "epochs": 16, **cosine, "with": shrink},
            {"use": "export.packed", "level": "max"},
        ],
    }
    demiglace.run(recipe, out=tmp_path / "run")
    tensors = inspect(next(tmp_path.glob("run/steps/*/model.dgz"))).tensors
    codes = [one for one in tensors if one.name.endswith("_codes")]
    assert len(codes) == 3
    entropy = sum(one.entropy * one.elements / 8 for one in codes)
    assert sum(one.bytes - 64 for one in codes) <= 0.92 * entropy
    first = next(one for one in codes if one.name == "fc1.weight_codes")
    assert first.bytes <= 0.85 * first.entropy * first.elements / 8
