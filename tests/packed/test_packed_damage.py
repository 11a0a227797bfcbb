"""No damaged or forged file is taken for a model, and none makes the reader allocate what it cannot hold."""

import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_models import Holder

from demiglace.artifact import GraphOrigin
from demiglace.artifact.packed import container, integers, pack, unpack
from demiglace.errors import ArtifactError
from demiglace.graph import ModelGraph

LEVELS = ("default", "max")


def tensors(level):
    """Tensors that take every encoding at a level; those that take long to decode are last."""
    torch.manual_seed(0)
    sparse = torch.randn(20, 30) * (torch.rand(20, 30) > 0.9)
    default = {
        "weight": sparse,
        "floats": torch.randn(200),
        "codes": torch.randint(0, 5, (100,), dtype=torch.uint8),
        "few": torch.tensor([1.5, -2.0])[torch.randint(0, 2, (60,))],
        "counts": torch.arange(40),
        "smooth": ((torch.rand(300) + torch.rand(300)) * 40 + 20).to(torch.uint8),
        "clipped": (torch.randn(900) * 40).clamp(-50, 50).round().add(128).to(torch.uint8),
    }
    corner = torch.exp(-(torch.arange(64) // 8 + torch.arange(64) % 8) / 2.0)
    row, high_one = torch.arange(30)[:, None] % 2, torch.rand(30, 90) < 0.5
    high = {
        "weight": sparse,
        "classed": (row + high_one * (2 + 2 * row)).to(torch.uint8),  # 0 and 2 in a row, or 1 and 5
        "near": (torch.randn(40, 64).sign() * (torch.rand(40, 64) < corner)).to(torch.int8),
        "alike": (torch.randn(60, 1) * 20 + torch.randn(60, 8) * 5).round().clamp(-60, 60).to(torch.int8),
    }
    return default if level == "default" else high


def written(folder, level):
    held, path = tensors(level), folder / f"{level}.dgz"
    weight = held.pop("weight")
    model = Holder(**held)
    model.weight = torch.nn.Parameter(weight.clone())
    graph = ModelGraph(model, masks={"weight": weight != 0})
    pack(graph, path, origin=GraphOrigin(), provenance={}, context=level == "max")
    return path


@pytest.fixture(scope="module", params=["default", "max"])
def sound(request, tmp_path_factory):
    """A file with many encodings and a mask."""
    return written(tmp_path_factory.mktemp("sound"), request.param).read_bytes()


def test_the_files_hold_every_encoding_of_integers(tmp_path):
    names = {one.encoding for level in LEVELS for one in unpack(written(tmp_path, level)).stored.values()}
    assert names >= set(integers.NAMES.values()) - {"raw"}


@pytest.fixture
def put(tmp_path):
    """Writes one file again and again, in place: file systems take a millisecond and more to empty it."""
    path = tmp_path / "m.dgz"
    path.touch()

    def write(content):
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
        return path

    return write


@pytest.fixture
def refused(put):
    def refuse(content, match=None):
        path = put(content)
        with pytest.raises(ArtifactError, match=match) as caught:
            unpack(path)
        assert str(path) in str(caught.value)
        assert all(fault.hint for fault in caught.value.faults)

    return refuse


def test_every_flipped_bit_is_refused(sound, refused):
    for place in range(8 * len(sound)):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        refused(bytes(content))


def test_every_truncation_is_refused(sound, refused):
    for length in range(len(sound)):
        refused(sound[:length])


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("near", "max"),
        ("alike", "max"),
        ("classed", "max"),
        ("clipped", "default"),
        ("smooth", "default"),
    ],
)
def test_a_flipped_bit_under_a_right_checksum_gives_no_other_model(name, level, put, tmp_path):
    """The decoders themselves meet damage here; a bit that nothing depends on may be another one."""
    tensor, path = tensors(level)[name], tmp_path / "sound.dgz"
    pack(ModelGraph(Holder(t=tensor)), path, origin=GraphOrigin(), provenance={}, context=level == "max")
    content, (start, block) = path.read_bytes(), first_block(path.read_bytes())
    for place in range(0, 8 * len(block), 8 * len(block) // 150):
        flipped = bytearray(block)
        flipped[place // 8] ^= 1 << place % 8
        other = put(content[:64] + container.framed(bytes(flipped)) + content[start + len(block) :])
        try:
            back = unpack(other).tensors["t"]
        except ArtifactError:
            continue
        assert torch.equal(back, tensor)


def first_block(content):
    """Where the first block begins behind its length and checksum, and the block."""
    at, length, shift = 64, 0, 0
    while True:
        byte = content[at]
        length |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return at + 4, content[at + 4 : at + 4 + length]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_overwritten_stretches_are_refused(sound, tmp_path_factory, data):
    start = data.draw(st.integers(0, len(sound) - 1))
    stretch = data.draw(st.binary(min_size=1, max_size=40))
    content = sound[:start] + stretch + sound[start + len(stretch) :]
    if content == sound:
        return
    path = tmp_path_factory.mktemp("overwritten") / "m.dgz"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        unpack(path)


def test_nothing_is_decompressed_or_decoded_before_its_checksum(sound, refused):
    header = len(sound) - 4 - int.from_bytes(sound[16:20], "little")
    for place in range(8 * header, 8 * len(sound), 29):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        refused(bytes(content), "header's checksum differs")
    first = 64 + 2 + 4  # prelude, length, checksum
    for place in range(8 * first, 8 * first + 400, 29):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        refused(bytes(content), "block's checksum differs")


def test_the_last_block_is_checked_before_the_first_is_decoded(refused, tmp_path):
    shapes = {"first": ["uint8", [4], 0], "last": ["uint8", [4], 0]}
    content = bytearray(forged(header(tensors=shapes), [b"\x09", bytes(5)], tmp_path))
    refused(bytes(content), "unknown encoding")
    end = len(content) - 4 - int.from_bytes(content[16:20], "little")
    content[end - 1] ^= 1
    refused(bytes(content), "block's checksum differs")


def test_something_behind_the_file_is_refused(sound, refused):
    refused(sound + b"\0", "should have")


def test_blocks_in_another_order_are_refused(refused, tmp_path):
    path = tmp_path / "two.dgz"
    one, two = torch.randn(50), torch.randn(50)
    pack(ModelGraph(Holder(a=one, b=two)), path, origin=GraphOrigin())
    content = path.read_bytes()
    prelude = 64
    length = content[prelude] & 0x7F | content[prelude + 1] << 7
    size = 2 + 4 + length
    other = content[prelude + size : prelude + 2 * size]
    assert len(other) == size
    swapped = content[:prelude] + other + content[prelude : prelude + size] + content[prelude + 2 * size :]
    refused(swapped)


def test_an_unknown_version_is_named(sound, refused):
    refused(sound[:8] + struct.pack("<H", 2) + sound[10:], "format version 2.* reads version 1")


def test_what_is_no_packed_file_is_said_so(refused, tmp_path):
    refused(b"PK\x03\x04 something else altogether", "not a packed model")
    refused(b"", "not a packed model")
    with pytest.raises(ArtifactError, match="No such file"):
        unpack(tmp_path / "absent.dgz")


def forged(header: dict, blocks=(), tmp_path=None) -> bytes:
    """A file with right checksums everywhere."""
    path = tmp_path / "forged.dgz"
    with path.open("w+b") as file:
        writer = container.BlockWriter(file)
        for block in blocks:
            writer.write(block)
        writer.finish(header, "00" * 32)
    return path.read_bytes()


def header(**changed) -> dict:
    return {
        "form": "module",
        "tensors": {},
        "origin": {"kind": "graph"},
        "masks": {},
        "tied": [],
        "training": [True, []],
        "edits": [],
        "constants": {},
        "graph": 0,
        "transform": [],
        "provenance": {},
        **changed,
    }


HUGE = [1 << 20, 1 << 20]
FORGED = {
    "a tensor larger than the file can hold": (header(tensors={"t": ["float32", HUGE, 0]}), [], "can hold"),
    "a mask larger than the file can hold": (header(masks={"t": HUGE}), [], "can hold"),
    "a shape beyond 64 bits": (header(tensors={"t": ["uint8", [1 << 62, 8], 0]}), [], "can hold"),
    "a size beyond torch's without any element": (
        header(tensors={"t": ["uint8", [1 << 70, 0], 0]}),
        [],
        "valid",
    ),
    "a negative size": (header(tensors={"t": ["float32", [-1], 0]}), [], "valid"),
    "an unknown dtype": (header(tensors={"t": ["float33", [1], 0]}), [], "float33"),
    "a name of torch that is no dtype": (header(tensors={"t": ["load", [1], 0]}), [], "load"),
    "a graph larger than the file can hold": (header(graph=1 << 40), [b"\0"], "text of"),
    "integers of nine bits": (header(tensors={"t": ["uint8", [2, 9], 0, None, [9, 8]]}), [], "valid"),
    "no blocks": (header(tensors={"t": ["float32", [4], 0]}), [], "no length"),
    "an unknown encoding": (header(tensors={"t": ["float32", [4], 0]}), [b"\x09"], "unknown encoding"),
    "an empty block": (header(tensors={"t": ["float32", [4], 0]}), [b""], "wanted"),
    "a codebook that is too short": (
        header(tensors={"t": ["uint8", [8], 0]}),
        [b"\x02\x01\x05\x06\x01\x02\xff\xff"],
        "no number",
    ),
    "a sparse array without anything": (
        header(tensors={"t": ["float32", [8], 0]}),
        [b"\x03\x01\x01\x00"],
        "no word",
    ),
    "mixed integers of too large a class": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [b"\x01\x05\x00\x08\x00\x01\x00"],
        "mixed",
    ),
    "mixed integers without a lag": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [b"\x01\x05\x00\x00\x00\x00\x00"],
        "mixed",
    ),
    "mixed integers with something left": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [b"\x01\x05\x00\x00\x00\x01\x05" + bytes(range(1, 21))],
        "more than was pushed",
    ),
    "predicted integers of one column": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 6, 0, 0, 0, 9, 127, 129, 1, 0])],
        "1 columns",
    ),
    "predicted integers of columns that are no divisor": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 6, 0, 0, 0, 9, 127, 129, 3, 0])],
        "3 columns",
    ),
    "predicted integers of too large a level": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 6, 0, 0, 0, 41, 127, 129, 4, 0])],
        "predicted",
    ),
    "predicted integers of which there is one": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 6, 0, 0, 0, 9, 128, 128, 4, 0])],
        "predicted",
    ),
    "predicted integers with something left": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 6, 0, 0, 0, 9, 127, 129, 4, 5]) + bytes(range(1, 21))],
        "more than was pushed",
    ),
    "ends with nothing between": (
        header(tensors={"t": ["uint8", [2, 4], 0]}),
        [bytes([1, 7, 5, 5, 0])],
        "between the ends",
    ),
    "more words than it has": (header(tensors={"t": ["float32", [4], 0]}), [bytes(17) + b"\x01"], "longer"),
    "more blocks than tensors": (header(), [b"\0"], "more blocks"),
    "another model": (header(), [], "not the model that was packed"),
    "no form": ({}, [], "valid"),
    "an edit that is none": (header(edits=[{"edit": "exec"}]), [], "not an edit"),
    "a cut that keeps no indices": (
        header(edits=[{"edit": "cut", "tensor": "t", "dim": 0, "kept": "fx"}]),
        [],
        "valid",
    ),
    "flags that are none": (header(tensors={"t": ["float32", [4], 7]}), [], "valid"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_with_right_checksums_are_refused(name, refused, tmp_path):
    content, blocks, match = FORGED[name]
    refused(forged(content, blocks, tmp_path), match)


def test_a_header_that_unpacks_to_far_more_is_refused(sound, refused):
    prelude = bytearray(sound[:60])
    struct.pack_into("<I", prelude, 12, (1 << 26) + 1)
    refused(bytes(prelude) + zlib.crc32(prelude).to_bytes(4, "little") + sound[64:], "cannot be in")


def test_a_constant_tensor_is_worth_the_bytes_that_it_stands_for(packed):
    written, back = packed(t=torch.zeros(4 << 20))
    assert (4 * 4 << 20) >> 16 <= written.bytes < 2000
    assert not back.tensors["t"].any()
