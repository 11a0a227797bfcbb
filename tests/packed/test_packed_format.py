"""The format is what `docs/reference/packed-format.md` says: a reader that knows only that page agrees."""

import pytest
import torch
from packed_models import Holder
from page_reader import Reader, plain, read

from demiglace.artifact import GraphOrigin
from demiglace.artifact.packed import pack
from demiglace.artifact.packed.text import compressed, text_of
from demiglace.graph import ModelGraph


def near_each_other():
    """Columns are places of a grid of 8 by 8, and in one corner of it are all integers but a few."""
    row, column = torch.arange(64) // 8, torch.arange(64) % 8
    corner = torch.exp(-(row.square() + column.square()) / 12.0)
    return ((torch.randn(40, 64) * 40 * corner) * (torch.rand(40, 64) < corner)).round().to(torch.int8)


def alike(rows, columns):
    """Columns that have much in common."""
    return (torch.randn(rows, 1) * 20 + torch.randn(rows, columns) * 5).round().clamp(-60, 60).to(torch.int8)


def tensors():
    torch.manual_seed(5)
    scale = torch.logspace(-2, 0, 40)[:, None]
    return {
        "plain": torch.randn(30, 10),
        "sixteen": torch.randn(300).half(),
        "signed": torch.randn(30, 40) * (torch.rand(30, 40) > 0.9),
        "sparse": torch.randn(30, 40).masked_fill(torch.rand(30, 40) < 0.9, 0.0),
        "few": torch.tensor([0.5, -0.5, 2.0])[torch.randint(0, 3, (500,))],
        "smooth": (torch.randn(1000) * 30).round().to(torch.int8),
        "codes": (torch.randn(40, 200) * scale * 60).round().to(torch.int8),
        "grid": near_each_other(),
        "alike": alike(60, 12),
        "kernels": alike(9, 90).T.contiguous(),
        "clipped": (torch.randn(900) * 40).clamp(-50, 50).round().to(torch.int8),
        "bits": torch.rand(200) > 0.5,
        "uniform": torch.randint(0, 16, (999,), dtype=torch.uint8),
        "counts": torch.arange(300),
        "constant": torch.ones(70),
    }


@pytest.mark.parametrize("context", [False, True])
def test_a_reader_made_from_the_page_alone_decodes_every_encoding(tmp_path, context):
    path = tmp_path / "m.dgz"
    model = Holder(**tensors())
    pack(ModelGraph(model), path, origin=GraphOrigin(), context=context)
    header, blocks = read(path.read_bytes())
    assert list(header["tensors"]) == list(tensors())
    tags = set()
    for (name, tensor), block in zip(tensors().items(), blocks, strict=True):
        width = tensor.element_size()
        columns = tensor.shape[1] if tensor.dim() > 1 else tensor.numel()
        words = Reader(block).elements(tensor.numel(), columns, width)
        octets = b"".join(word.to_bytes(width, "little") for word in words)
        assert octets == tensor.contiguous().view(torch.uint8).numpy().tobytes(), name
        tags.add((block[0], block[1] if block[0] == 1 else None))
    assert {tag for tag, _ in tags} == {1, 2, 3, 4, 5, 6}
    assert {(1, kind) for kind in ((3, 5, 6) if context else (2, 4, 7))} <= tags


def test_a_block_is_predicted_from_those_before_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setattr("demiglace.artifact.packed.blocks.LIMIT", 700)
    tensor, path = alike(150, 12), tmp_path / "m.dgz"
    pack(ModelGraph(Holder(t=tensor)), path, origin=GraphOrigin(), context=True)
    _, blocks = read(path.read_bytes())
    assert [block[:2] for block in blocks] == [b"\x01\x06"] * 3
    known, words = {}, []
    for block, rows in zip(blocks, (58, 58, 34), strict=True):
        words += Reader(block, known).elements(12 * rows, 12, 1)
    assert bytes(words) == tensor.numpy().tobytes()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b'{"form":"module","tensors":{"fc1.bias":["float32",[300],3]},"tied":[],"training":[false,[]]}', 1),
        (bytes(range(256)) * 400, 0),
    ],
)
def test_text_is_coded_the_smaller_way_and_read_by_the_page(text, number):
    coded = compressed(text)
    assert coded[0] == number
    assert plain(coded) == text_of(coded, len(text)) == text
    assert len(coded) < len(text) / 4
