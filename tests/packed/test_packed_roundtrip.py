"""A packed file decodes to the very bits that were packed, whatever they are."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_models import Holder
from torch import nn

from demiglace.artifact import CallerOrigin, GraphOrigin, load, open_artifact, state_digest
from demiglace.artifact.packed import blocks, mixed, pack, predicted, unpack
from demiglace.artifact.packed.integers import decode as decode_integers
from demiglace.artifact.packed.integers import encode as encode_integers
from demiglace.artifact.packed.regression import Memory
from demiglace.artifact.packed.stream import Cursor, Damaged
from demiglace.artifact.packed.ways import Way
from demiglace.artifact.tensor_file import raw
from demiglace.errors import ArtifactError
from demiglace.graph import Example, Mask, ModelGraph, apply
from demiglace.graph.plain import lower
from demiglace.quantization import Scheme, round_weight, weight_only_swap

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.complex32, torch.complex64, torch.complex128),
    *(
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ),
    *(torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]

GOLDEN = (2741, "79bafa4d8ef01440")

shapes = st.lists(st.integers(0, 9), max_size=3)
kinds = st.sampled_from(["any bits", "sparse", "few", "constant", "smooth"])


def drawn(dtype: torch.dtype, shape: list[int], kind: str, seed: int) -> torch.Tensor:
    """A tensor of some kind of content; `any bits` has every NaN and denormal."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    octets = rng.integers(0, 256, (count, dtype.itemsize), dtype=np.uint8)
    if kind == "sparse":
        octets[rng.random(count) < 0.9] = 0
    elif kind == "few":
        octets = octets[rng.integers(0, 3, count)] if count > 2 else octets
    elif kind == "constant":
        octets = np.repeat(octets[:1], count, axis=0)
    elif kind == "smooth":
        octets = np.minimum(octets, 3)
    if dtype is torch.bool:
        octets &= 1
    return torch.from_numpy(octets.reshape(-1)).view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(raw(tensor))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DTYPES), shapes, kinds, st.integers(0, 99), st.booleans())
def test_every_dtype_shape_and_bit_pattern_comes_back(dtype, shape, kind, seed, context):
    tensor = drawn(dtype, shape, kind, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.dgz"
        pack(ModelGraph(Holder(t=tensor)), path, origin=GraphOrigin(), context=context)
        back = unpack(path).tensors["t"]
    assert back.dtype == dtype
    assert tuple(back.shape) == tuple(shape)
    assert bits(back) == bits(tensor)


@pytest.mark.filterwarnings("error")
@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 255), st.integers(1, 7), st.booleans())
def test_integers_of_any_kind_come_back(content, most, columns, context):
    symbols = np.minimum(np.frombuffer(content, dtype=np.uint8), most)
    columns = columns if len(symbols) % columns == 0 else len(symbols)
    cursor = Cursor(encode_integers(symbols, columns, Memory() if context else None))
    assert np.array_equal(decode_integers(cursor, len(symbols), columns, Memory()), symbols)
    assert cursor.rest_is_padding()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 255),
    st.sampled_from([2, 30, 256]),
    st.integers(0, 99),
)
def test_mixed_integers_come_back_whatever_they_are(rows, columns, usual, kinds, seed):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, kinds, (rows, columns), dtype=np.uint8) + np.uint8(usual)
    symbols[rng.random((rows, columns)) < rng.random()] = usual
    cursor = Cursor(mixed.encode(symbols, usual))
    assert np.array_equal(mixed.decode(cursor, rows, columns), symbols.reshape(-1))
    assert cursor.rest_is_padding()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 8),
    st.integers(2, 9),
    st.booleans(),
    st.integers(0, 7),
    st.sampled_from([2, 30, 256]),
    st.integers(0, 99),
)
def test_predicted_integers_come_back_whatever_they_are(rows, times, width, across, shrink, kinds, seed):
    rng = np.random.default_rng(seed)
    usual = int(rng.integers(256))
    wanted = rng.integers(0, kinds, (rows, times * width), dtype=np.uint8) + np.uint8(usual)
    wanted[0, 0] = wanted[0, 1] + 1
    matrix = np.ascontiguousarray(wanted.T) if across else wanted
    coded, _ = predicted.encode(matrix, usual, Way(width, across, shrink), Memory())
    cursor = Cursor(coded)
    assert np.array_equal(predicted.decode(cursor, *matrix.shape, Memory()), matrix.reshape(-1))
    assert cursor.rest_is_padding()


def test_predicted_integers_take_the_same_bytes_on_every_machine():
    """Files of one machine are read on others: another rounding anywhere would give other bytes."""
    row, column = np.arange(200)[:, None], np.arange(24)
    wave = 37 * row % 101 - 50 + (13 * row * column % 29 - 14)
    matrix = (wave // 2 + 128).astype(np.uint8)
    coded, _ = predicted.encode(matrix, 128, Way(24, False, 2), Memory())
    assert (len(coded), hashlib.sha256(coded).hexdigest()[:16]) == GOLDEN


def alike(rows, columns):
    """Columns that have much in common."""
    return (torch.randn(rows, 1) * 8 + torch.randn(rows, columns) * 4).round().clamp(-60, 60).to(torch.int8)


@pytest.mark.parametrize("across", [False, True])
def test_columns_or_rows_that_are_alike_pay(across, packed):
    tensor = alike(300, 40).T.contiguous() if across else alike(300, 40)
    _, before = packed(t=tensor)
    _, back = packed(t=tensor, context=True)
    assert torch.equal(back.tensors["t"], tensor)
    assert back.stored["t"].encoding == "entropy-coded, predicted"
    assert back.stored["t"].bytes < 0.85 * before.stored["t"].bytes


def test_a_block_is_predicted_from_the_blocks_before_it(packed, monkeypatch):
    tensor = alike(600, 40)
    whole = packed(t=tensor, context=True)[1].stored["t"].bytes
    monkeypatch.setattr(blocks, "LIMIT", 200 * 40)
    _, back = packed(t=tensor, context=True)
    assert torch.equal(back.tensors["t"], tensor)
    apart = sum(packed(t=part, context=True)[1].stored["t"].bytes for part in tensor.split(200))
    assert back.stored["t"].bytes < whole + 100 < apart


def test_blocks_that_are_coded_otherwise_are_not_remembered(packed, monkeypatch):
    monkeypatch.setattr(blocks, "LIMIT", 200 * 40)
    some, more = ((alike(200, 40) + 128).to(torch.uint8) for _ in range(2))
    noise = torch.randint(0, 120, (200, 40)).to(torch.uint8)
    # Prediction makes the bytes themselves smaller too, and a codebook is better still.
    fours = (4 * (torch.randn(200, 1) * 6 + torch.randn(200, 40)).round() + 128).to(torch.uint8)
    assert packed(t=fours, context=True)[1].stored["t"].encoding == "codebook"
    tensor = torch.cat([some, noise, torch.zeros_like(noise), fours, more])
    assert torch.equal(packed(t=tensor, context=True)[1].tensors["t"], tensor)


def test_neighbours_that_are_alike_pay(packed):
    # Columns are places of an image of 28 x 28, and weights near its middle are not zero.
    row, column = torch.arange(784) // 28, torch.arange(784) % 28
    present = torch.rand(100, 784) < 0.2 * torch.exp(-((row - 14) ** 2 + (column - 14) ** 2) / 40.0)
    tensor = ((torch.randn(100, 784) * 2).round() * present).to(torch.int8)
    plain, _ = packed(t=tensor)
    mixed_file, back = packed(t=tensor, context=True)
    assert torch.equal(back.tensors["t"], tensor)
    assert back.stored["t"].encoding == "entropy-coded, mixed contexts"
    assert back.stored["t"].bytes < 0.92 * (plain.bytes - (mixed_file.bytes - back.stored["t"].bytes))


def test_mixing_takes_no_more_lines_than_it_may(monkeypatch):
    symbols = (np.random.default_rng(0).random((20, 30)) < 0.1).astype(np.uint8)
    monkeypatch.setattr(mixed, "MOST_LINES", 25)
    coded = mixed.encode(symbols, 0)
    assert coded[2] == 0, "rows are lines, columns would be too many"
    assert np.array_equal(mixed.decode(Cursor(coded), 20, 30), symbols.reshape(-1))
    with pytest.raises(Damaged):
        mixed.decode(Cursor(coded), 30, 20)
    monkeypatch.setattr(mixed, "MOST_LINES", 10)
    assert encode_integers(symbols.reshape(-1), 30, Memory())[0] != 5


def test_a_tensor_of_several_blocks_comes_back(packed, monkeypatch):
    monkeypatch.setattr(blocks, "LIMIT", 64)
    sparse = torch.randn(20, 5) * (torch.rand(20, 5) > 0.9)
    for tensor in (torch.randn(30, 7), torch.randn(3, 100), torch.randn(150), sparse):
        assert bits(packed(t=tensor)[1].tensors["t"]) == bits(tensor)


def test_classes_of_rows_and_columns_decode_and_pay(packed):
    scale = torch.logspace(-3, 0, 200)
    tensor = (torch.randn(200, 300) * scale[:, None] * 100).round().clamp(-127, 127).to(torch.int8)
    plain, _ = packed(t=tensor)
    classed, back = packed(t=tensor, context=True)
    assert torch.equal(back.tensors["t"], tensor)
    assert back.stored["t"].encoding == "entropy-coded by classes"
    assert classed.bytes < 0.9 * plain.bytes


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))


def opened(graph: ModelGraph, path: Path, **given):
    written = pack(graph, path, origin=CallerOrigin.of(net()), **given)
    artifact = open_artifact(path, model=net)
    assert state_digest(artifact.model_graph()) == written.digest == state_digest(graph)
    return artifact


def test_memory_format_flags_and_buffers_come_back(tmp_path):
    model = net().to(memory_format=torch.channels_last).eval()
    model[0].train()
    model[4].bias.requires_grad_(False)
    back = opened(ModelGraph(model), tmp_path / "m.dgz").module
    assert back[0].weight.stride() == model[0].weight.stride()
    assert back[0].training
    assert not back[1].training
    assert not back[4].bias.requires_grad
    assert torch.equal(back[1].running_var, model[1].running_var)


def test_masks_come_back_even_where_a_kept_weight_is_zero(tmp_path):
    graph = ModelGraph(net())
    apply(graph, [Mask("4.weight", torch.rand(5, 288) > 0.7)]).commit()
    with torch.no_grad():
        graph.module[4].weight[graph.masks["4.weight"].nonzero()[0].unbind()] = 0.0
    masks = opened(graph, tmp_path / "m.dgz").masks
    assert torch.equal(masks["4.weight"], graph.masks["4.weight"])


def test_views_and_tied_tensors_come_back(tmp_path):
    wide = torch.randn(8, 6)
    model = nn.Module()
    model.one, model.two = nn.Linear(4, 6), nn.Linear(6, 8, bias=False)
    model.three = nn.Linear(6, 8, bias=False)
    model.two.weight = model.three.weight
    model.register_buffer("view", wide.t()[::2])
    path = tmp_path / "m.dgz"
    pack(ModelGraph(model), path, origin=GraphOrigin())
    content = unpack(path)
    assert content.info.state.tied == (("two.weight", "three.weight"),)
    assert set(content.tensors) == {"one.weight", "one.bias", "two.weight", "view"}
    assert torch.equal(content.tensors["view"], wide.t()[::2])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_integers_of_every_width_come_back(tmp_path, bits, symmetric):
    graph = ModelGraph(net())
    weight = round_weight(graph.module[4].weight, Scheme(bits, symmetric), clip=False)
    apply(graph, [weight_only_swap("4", graph.module[4], {"weight": weight})]).commit()
    artifact = opened(graph, tmp_path / "m.dgz")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(artifact.module.eval()(x), graph.module.eval()(x))
    entry = unpack(tmp_path / "m.dgz").header.tensors["4.weight_codes"]
    assert (entry.fields.bits, entry.fields.columns, entry.is_weight) == (bits, 288, True)


def test_bytes_that_are_not_clean_integers_are_kept_as_bytes(tmp_path):
    graph = ModelGraph(nn.Sequential(nn.Linear(7, 3)))
    weight = round_weight(graph.module[0].weight, Scheme(3), clip=False)
    apply(graph, [weight_only_swap("0", graph.module[0], {"weight": weight})]).commit()
    graph.module[0].weight_codes[0, -1] |= 0x80  # in the filling of the row
    path = tmp_path / "m.dgz"
    pack(graph, path, origin=GraphOrigin())
    assert unpack(path).header.tensors["0.weight_codes"].fields is None
    assert torch.equal(unpack(path).tensors["0.weight_codes"], graph.module[0].weight_codes)


def test_a_callers_model_opens_by_its_graph(tmp_path):
    model = net().eval()
    graph = ModelGraph(model, Example((torch.randn(2, 3, 8, 8),)))
    path = tmp_path / "m.dgz"
    pack(graph, path, origin=CallerOrigin.of(model), graph=lower(graph))
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(load(path)(x), model(x))


def test_a_callers_model_without_a_graph_says_what_to_pass(tmp_path):
    path = tmp_path / "m.dgz"
    pack(ModelGraph(net()), path, origin=CallerOrigin.of(net()))
    with pytest.raises(ArtifactError, match="Sequential") as caught:
        load(path)
    assert "model=" in str(caught.value)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    import errno

    path = tmp_path / "m.dgz"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("demiglace.artifact.packed.container.BlockWriter.write", full)
    with pytest.raises(ArtifactError, match="No space left"):
        pack(ModelGraph(net()), path, origin=GraphOrigin())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
