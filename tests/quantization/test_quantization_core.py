import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.quantization import (
    QTensor,
    Scheme,
    TensorError,
    fit,
    pack,
    round_weight,
    to_integers,
    to_real,
    unpack,
)
from demiglace.quantization.integer import affine_linear, integer_product, quantize_rows

SCHEMES = st.builds(
    Scheme, st.integers(2, 8), st.booleans(), st.sampled_from([None, 4]), st.just(False)
) | st.builds(Scheme, st.integers(2, 8), st.booleans(), st.none(), st.just(True))


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 1000))
def test_packed_integers_come_back_and_waste_less_than_a_unit(bits, count, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (3, count), generator=generator)
    packed = pack(values, bits)
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, bits, count).long(), values)
    assert 0 <= packed.shape[1] * 8 - count * bits < 8 * bits


def _weight(rows, columns, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    if kind == "dead rows":
        weight[::2] = 0
    if kind == "constant":
        weight[:] = 0.37
    if kind == "one sided":
        weight = weight.abs() + 3
    if kind == "tiny":
        weight *= 1e-30
    if kind == "huge":
        weight *= 1e30
    if kind == "outlier":
        weight[0, 0] = 1000.0
    return weight


@settings(deadline=None)
@given(
    SCHEMES,
    st.sampled_from(["plain", "dead rows", "constant", "one sided", "tiny", "huge", "outlier", "zero"]),
    st.integers(0, 100),
    st.booleans(),
)
def test_rounding_is_finite_keeps_zeros_and_errs_by_half_a_step_at_most(scheme, kind, seed, clip):
    weight = _weight(6, 8, kind, seed) * (kind != "zero")
    quantized = round_weight(weight, scheme, clip=clip)
    back = quantized.dequantize()
    assert back.isfinite().all()
    assert (back[weight == 0] == 0).all()
    assert quantized.zeros() == int((back == 0).sum())
    step = quantized.scale.float().repeat_interleave(8 // quantized.scale.shape[1], 1)
    if not clip:
        assert ((back - weight).abs() <= step * 0.502 + 1e-37).all()


def test_clipping_by_squared_error_never_does_worse_than_the_full_range():
    weight = _weight(16, 64, "outlier", 0)
    for bits in (2, 3, 4, 8):
        for symmetric in (True, False):
            scheme = Scheme(bits, symmetric, 32)
            full, clipped = (round_weight(weight, scheme, clip=clip).dequantize() for clip in (False, True))
            assert (clipped - weight).square().sum() <= (full - weight).square().sum() * 1.0001


@pytest.mark.parametrize(
    ("bits", "group", "expected"), [(8, None, 8.0), (4, None, 4.0), (3, None, 3.0), (2, 32, 2.0)]
)
def test_a_stored_integer_takes_its_bits(bits, group, expected):
    quantized = round_weight(torch.randn(16, 960), Scheme(bits, True, group))
    codes = 8 * quantized.codes.nbytes / quantized.numel()
    scales = 16 / (group or 960)
    assert codes == expected
    assert quantized.stored_bits() / quantized.numel() == pytest.approx(expected + scales)


def test_scales_stay_wide_where_sixteen_bits_would_spoil_a_small_row():
    weight = torch.randn(4, 64)
    weight[1] *= 1e-6
    quantized = round_weight(weight, Scheme(8, True))
    assert quantized.scale.dtype == torch.float32
    assert TensorError.between(weight[1], quantized.dequantize()[1]).sqnr > 40


def test_two_symmetric_bits_are_ternary():
    quantized = round_weight(torch.randn(8, 64), Scheme(2, True))
    assert set(quantized.integers.unique().tolist()) == {-1, 0, 1}


def test_fit_survives_empty_and_infinite_free_ranges():
    zero = torch.zeros(3)
    for symmetric in (True, False):
        scheme = Scheme(8, symmetric)
        scale, offset = fit(zero, zero, scheme)
        assert (scale == 1).all()
        assert (to_real(to_integers(zero, scale, offset, scheme), scale, offset) == 0).all()


SIZES = [(1, 1, 1), (3, 1, 5), (1, 384, 16), (7, 33, 5), (64, 4096, 8), (0, 4, 3)]


@pytest.mark.parametrize(("n", "k", "m"), SIZES)
def test_integer_products_are_exact(n, k, m):
    torch.manual_seed(0)
    left = torch.randint(-128, 128, (n, k), dtype=torch.int8)
    right = torch.randint(-127, 128, (m, k), dtype=torch.int8)
    assert torch.equal(integer_product(left, right).long(), left.long() @ right.long().T)


def test_an_affine_linear_layer_is_the_layer_of_the_dequantized_operands():
    torch.manual_seed(0)
    values, weight = torch.randn(9, 64) + 1, torch.randn(5, 64)
    integers, scale, zero = quantize_rows(values)
    quantized = round_weight(weight, Scheme(8, True))
    got = affine_linear(
        integers,
        scale,
        zero,
        quantized.integers,
        quantized.scale.flatten(),
        quantized.integers.sum(1).float(),
    )
    expected = ((integers.float() - zero) * scale).double() @ quantized.dequantize().double().T
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_of_one_value_or_of_zeros_are_quantized_without_nan():
    values = torch.stack([torch.zeros(8), torch.full((8,), 5.0), torch.full((8,), -1e-30), torch.arange(8.0)])
    integers, scale, zero = quantize_rows(values)
    back = (integers.float() - zero) * scale
    torch.testing.assert_close(back, values, atol=0.02, rtol=0.01)


def test_errors_of_zero_and_equal_tensors_are_finite():
    zero, one = torch.zeros(4), torch.ones(4)
    assert TensorError.between(zero, zero) == TensorError(200.0, 1.0)
    assert TensorError.between(zero, one) == TensorError(-200.0, 0.0)
    assert TensorError.between(one, zero) == TensorError(0.0, 0.0)
    assert TensorError.between(one, one).sqnr == 200.0


def test_an_embedding_row_is_the_row_of_the_whole_table():
    table = round_weight(torch.randn(50, 24), Scheme(3, False, 8))
    index = torch.tensor([3, 3, 49])
    assert torch.equal(table.rows(index).dequantize(), table.dequantize()[index])


def test_a_qtensor_keeps_another_axis_of_rows():
    weight = torch.randn(4, 6, 3)
    quantized = round_weight(weight, Scheme(8, True), axis=1)
    assert isinstance(quantized, QTensor)
    assert quantized.scale.shape == (6, 1)
    assert TensorError.between(weight, quantized.dequantize()).sqnr > 40
