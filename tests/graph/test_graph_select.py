"""The selection of the smallest magnitudes, against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.graph import count_zeros, keep_at_least, keep_largest, kth_smallest, mask_smallest

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def sorted_keep(tensors, remove, keeps):
    """What a stable sort of all magnitudes keeps."""
    joined = [
        one.double().abs() if keep is None else one.double().abs() * keep
        for one, keep in zip(tensors, keeps, strict=True)
    ]
    flat = torch.cat([one.flatten() for one in joined])
    kept = torch.ones(flat.numel(), dtype=torch.bool)
    kept[flat.argsort(stable=True)[:remove]] = False
    return list(kept.split([one.numel() for one in tensors]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.floats(0, 1),
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
)
def test_the_same_weights_go_as_by_a_stable_sort(sizes, dtype, share, seed, few_values, masked):
    draw = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(size, 3, generator=draw).to(dtype) for size in sizes]
    if few_values:
        tensors = [(one * 2).round() / 2 for one in tensors]
    keeps = [torch.rand(one.shape, generator=draw) > 0.3 if masked else None for one in tensors]
    remove = round(share * sum(one.numel() for one in tensors))
    got = keep_largest(tensors, remove, keeps)
    want = sorted_keep(tensors, remove, keeps)
    assert sum(int((~one).sum()) for one in got) == remove
    assert all(torch.equal(one.flatten(), other) for one, other in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values_keep_their_order(dtype):
    info = torch.finfo(dtype)
    values = [0.0, -0.0, info.smallest_normal / 4, info.tiny, -1.0, 1.0 + info.eps, info.max, -torch.inf]
    tensor = torch.tensor(values, dtype=dtype)
    for rank in range(2, len(values)):
        assert kth_smallest([tensor.flip(0)], rank) == tensor[rank].abs()


def test_tensors_of_mixed_dtypes_are_compared_by_value():
    half, single = torch.tensor([0.5, 0.25], dtype=torch.bfloat16), torch.tensor([0.2501, 0.3])
    keeps = keep_largest([half, single], 2)
    assert [keep.tolist() for keep in keeps] == [[True, False], [False, True]]


def test_a_tensor_that_is_not_contiguous_is_ranked_in_its_own_order():
    tensor = torch.arange(24.0).view(4, 6).T
    [keep] = keep_largest([tensor], 7)
    assert torch.equal(keep, tensor >= 7)
    image = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    assert torch.equal(keep_largest([image], 50)[0], keep_largest([image.contiguous()], 50)[0])


def test_of_equal_magnitudes_the_first_go():
    first, second = keep_largest([torch.ones(2, 3), -torch.ones(4)], 7)
    assert not first.any()
    assert second.tolist() == [False, True, True, True]


def test_tensors_longer_than_a_chunk_are_selected_exactly(monkeypatch):
    from demiglace.graph import select

    monkeypatch.setattr(select, "_CHUNK", 7)
    tensors = [torch.randn(50), torch.randn(5, 9).T, (torch.randn(40) * 2).round()]
    keeps = [None, torch.rand(9, 5) > 0.5, None]
    want = sorted_keep(tensors, 77, keeps)
    got = keep_largest(tensors, 77, keeps)
    assert all(torch.equal(one.flatten(), other) for one, other in zip(got, want, strict=True))


def test_what_a_mask_removes_goes_first_whatever_its_value():
    tensor, keep = torch.tensor([5.0, 1.0, 2.0, 9.0]), torch.tensor([False, True, True, True])
    assert keep_largest([tensor], 2, [keep])[0].tolist() == [False, False, True, True]
    assert count_zeros(tensor, keep) == 1


@pytest.mark.parametrize("remove", range(7))
def test_the_zeros_under_new_masks_are_those_removed_or_those_there_before(remove):
    tensors = [torch.tensor([0.0, 3.0, -0.0]), torch.tensor([2.0, 1.0, 9.0])]
    before = [None, torch.tensor([True, True, False])]
    keeps, zeros = mask_smallest(tensors, remove, before)
    assert zeros == max(remove, 3)
    assert [keep.tolist() for keep in keeps] == [
        keep.tolist() for keep in sorted_keep(tensors, remove, [torch.ones(3), before[1]])
    ]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.61, 0.9, 1.0])
def test_of_a_large_tensor_that_is_masked_already_the_smallest_of_the_rest_go(share):
    draw = torch.Generator().manual_seed(3)
    tensors = [torch.randn(500, 600, generator=draw), torch.randn(7, generator=draw)]
    before = [torch.rand(500, 600, generator=draw) > 0.6, None]
    remove = round(share * 300_007)
    want = sorted_keep(tensors, remove, before)
    got = keep_largest(tensors, remove, before)
    assert all(torch.equal(one.flatten(), other) for one, other in zip(got, want, strict=True))


def test_a_threshold_keeps_what_is_equal_to_it():
    tensor = torch.tensor([0.5, -0.5, 0.49, 0.0, -3.0])
    assert keep_at_least([tensor], 0.5)[0].tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("remove", [-1, 4])
def test_an_impossible_count_is_refused(remove):
    with pytest.raises(ValueError, match="of 3 weights"):
        keep_largest([torch.ones(3)], remove)


def test_the_tensors_stay_as_they_are():
    tensor = torch.randn(100)
    before = tensor.clone()
    keep_largest([tensor], 50)
    assert np.array_equal(before.numpy(), tensor.numpy())


@pytest.mark.parametrize("seed", range(6))
def test_a_sample_of_many_finds_what_digits_find(seed, monkeypatch):
    from demiglace.graph import select

    monkeypatch.setattr(select, "_SAMPLE", 256)
    draw = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(70, 50, generator=draw), torch.randn(40, 90, generator=draw)]
    if seed % 2:
        tensors[0] = (4 * tensors[0]).round() / 4
    keeps = [torch.rand(one.shape, generator=draw) > 0.8 if seed > 2 else None for one in tensors]
    keys = select._Keys.of(tensors, keeps)
    found = [(select._near(keys, rank), select._by_digits(keys, rank)) for rank in range(0, 7100, 71)]
    assert all(near is None or near[0] == digits for near, digits in found)
    assert sum(near is not None for near, _ in found) > 90
