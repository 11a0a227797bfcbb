"""Parameters, zeros, bits and bytes are those that the model really has."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from demiglace.artifact import SourceOrigin, save
from demiglace.graph import Example, Mask, ModelGraph, apply
from demiglace.measure import first_nonfinite, measure
from demiglace.measure.footprint import chunks


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    return model


def test_tied_weights_count_once():
    footprint = measure(ModelGraph(tied()))
    assert footprint.parameters == 16 + 8
    assert footprint.bits == 32 * 24
    assert footprint.bytes == 4 * (24 + 8) + 8
    assert list(footprint.layers) == ["0.weight", "1.weight", "1.bias"]


def test_zeros_count_what_a_mask_holds_at_zero_whatever_the_value():
    model = ModelGraph(nn.Linear(4, 2, bias=False))
    nn.init.ones_(model.module.weight)
    model.module.weight.data[0, 0] = 0
    keep = torch.ones(2, 4, dtype=torch.bool)
    keep[1] = False
    model.masks["weight"] = keep
    footprint = measure(model)
    assert footprint.zeros == footprint.layers["weight"].zeros == 5
    assert footprint.bytes == 4 * 8 + 1


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    masked=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 999),
)
def test_zeros_equal_those_of_weight_times_mask(shape, masked, transposed, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(0, 3, shape, generator=generator).float()
    keep = torch.rand(shape, generator=generator) > 0.5
    if transposed and len(shape) > 1:
        weight, keep = weight.transpose(0, 1), keep.transpose(0, 1).contiguous()
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    model = ModelGraph(module, masks={"weight": keep} if masked else {})
    effective = weight * keep if masked else weight
    assert measure(model).zeros == int((effective == 0).sum())


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(torch.float64, 64), (torch.bfloat16, 16), (torch.float8_e4m3fn, 8), (torch.complex64, 64)],
)
def test_bits_follow_the_dtype(dtype, bits):
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3, 5).to(dtype), requires_grad=False)
    assert measure(ModelGraph(module)).bits == bits * 15


def test_bytes_are_those_of_the_saved_tensors(tmp_path):
    model = ModelGraph(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    apply(model, [Mask("0.weight", torch.rand(5, 3, 3, 3) > 0.5)]).commit()
    info = save(model, tmp_path / "m", origin=SourceOrigin("net"))
    header = int.from_bytes((tmp_path / "m" / "model.safetensors").read_bytes()[:8], "little") + 8
    assert measure(model).bytes == info.files["model.safetensors"].bytes - header


def test_figures_over_some_parameters_are_their_sum():
    model = ModelGraph(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    footprint = measure(model, Example((torch.zeros(1, 4),)))
    assert footprint.over(["0.weight", "1.bias"]).parameters == 18
    assert footprint.over(list(footprint.layers)).bits == footprint.bits
    assert footprint.macs == 16 + 8
    with pytest.raises(KeyError):
        footprint.over(["2.weight"])


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3000, 700), (1, 3_000_000)])
def test_chunks_are_views_that_make_up_the_tensor(shape):
    tensor = torch.zeros(shape)
    parts = list(chunks(tensor))
    assert sum(part.numel() for part in parts) == tensor.numel()
    assert all(part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for part in parts)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64]
)
def test_the_first_parameter_that_is_not_finite_is_named(value, dtype):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).to(dtype)
    assert first_nonfinite(ModelGraph(model)) is None
    model[1].weight.data[2, 1] = value
    assert first_nonfinite(ModelGraph(model)) == "1.weight"


def test_a_buffer_may_hold_infinity_but_not_nan():
    model = nn.BatchNorm1d(3)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert first_nonfinite(ModelGraph(model)) is None
    model.running_var[1] = torch.nan
    assert first_nonfinite(ModelGraph(model)) == "running_var"


def test_integers_and_narrow_floats_are_looked_at_too():
    model = nn.Module()
    model.register_buffer("whole", torch.tensor([1, 2]))
    model.weight = nn.Parameter(torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn), requires_grad=False)
    assert first_nonfinite(ModelGraph(model)) == "weight"
