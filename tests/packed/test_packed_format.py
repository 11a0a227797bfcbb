"""The format is what `docs/reference/packed-format.md` says: a reader that knows only that page agrees."""

import bisect
import json
import lzma
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_models import Holder

from demiglace.artifact import GraphOrigin
from demiglace.artifact.packed import pack
from demiglace.artifact.packed.text import compressed, text_of
from demiglace.graph import ModelGraph

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "packed-format.md"
QUARTERS = (16384, 19484, 23170, 27554)


def frequencies(levels):
    weights = [0 if level == 0 else QUARTERS[(level - 1) % 4] * 2 ** ((level - 1) // 4) for level in levels]
    room = 2**24 - len(levels)
    shares = [weight * room // sum(weights) for weight in weights]
    shares[weights.index(max(weights))] += room - sum(shares)
    return [share + 1 for share in shares]


class Reader:
    """Reads one block."""

    def __init__(self, content):
        self.content, self.at = content, 0

    def take(self, length):
        self.at += length
        return self.content[self.at - length : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def stack(self):
        count = self.varint()
        self.words = list(struct.unpack(f"<{count}I", self.take(4 * count)))
        self.state = 0
        while self.words and self.state < 2**32:
            self.state = self.state << 32 | self.words.pop()

    def pop(self, freqs, count):
        starts = [sum(freqs[:symbol]) for symbol in range(len(freqs))]
        out = []
        for _ in range(count):
            low = self.state % 2**24
            symbol = bisect.bisect_right(starts, low) - 1
            self.state = freqs[symbol] * (self.state >> 24) + low - starts[symbol]
            if self.state < 2**32 and self.words:
                self.state = self.state << 32 | self.words.pop()
            out.append(symbol)
        return out

    def modelled(self, kinds, count, stride=1):
        places = [*range(0, kinds - 1, stride), kinds - 1]
        steps = self.pop(frequencies([max(1, 64 - 4 * step) for step in range(256)]), len(places))
        knots = np.cumsum([(step + 1) // 2 if step % 2 else -step // 2 for step in steps]).tolist()
        levels = [int(level) for level in np.floor(np.interp(range(kinds), places, knots) + 1e-9)]
        return [0] * count if kinds == 1 else self.pop(frequencies(levels), count)

    def integers(self, count, columns):
        kind = self.take(1)[0]
        if kind == 0:
            return list(self.take(count))
        if kind == 1:
            width = self.take(1)[0]
            number = int.from_bytes(self.take(-(-count * width // 8)), "little")
            return [number >> width * place & 2**width - 1 for place in range(count)]
        kinds = self.take(1)[0] + 1
        if kind in {2, 4}:
            self.stack()
            return self.modelled(kinds, count, 8 if kind == 4 else 1)
        assert kind == 3
        row_classes, column_classes = self.take(2)
        self.stack()
        rows = self.modelled(row_classes, count // columns)
        of_columns = self.modelled(column_classes, columns)
        context = [row * column_classes + column for row in rows for column in of_columns]
        out = [0] * count
        for one in range(row_classes * column_classes):
            places = [place for place in range(count) if context[place] == one]
            if places:
                for place, symbol in zip(places, self.modelled(kinds, len(places)), strict=True):
                    out[place] = symbol
        return out

    def bits(self, count, columns):
        if self.take(1)[0] == 1:
            return self.integers(count, columns)
        octets = self.integers(-(-count // 8), -(-count // 8))
        return [octets[place // 8] >> place % 8 & 1 for place in range(count)]

    def elements(self, count, columns, width):
        tag = self.take(1)[0]
        if tag == 0:
            return [int.from_bytes(self.take(width), "little") for _ in range(count)]
        if tag == 1:
            return self.integers(count, columns)
        if tag == 2:
            values = self.take(1)[0] + 1
            book = [int.from_bytes(self.take(width), "little") for _ in range(values)]
            return [book[index] for index in self.integers(count, columns)]
        if tag in {3, 6}:
            kept = self.bits(count, columns)
            zeros = count - sum(kept)
            signs = iter(self.bits(zeros, zeros) if tag == 6 else [0] * zeros)
            rest = iter(self.elements(sum(kept), sum(kept), width))
            return [next(rest) if keep else next(signs) << 8 * width - 1 for keep in kept]
        out = [0] * count
        for _ in range(width):
            out = [
                value << 8 | octet for value, octet in zip(out, self.integers(count, columns), strict=True)
            ]
        return [value >> 1 | (value & 1) << 8 * width - 1 for value in out] if tag == 5 else out


def plain(content):
    """The text that was compressed."""
    if content[0] == 0:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": 4, "lp": 0, "pb": 0}]
        return lzma.decompress(content[1:], lzma.FORMAT_RAW, filters=filters)
    assert content[0] == 1
    return zlib.decompressobj(-15, zdict=dictionary()).decompress(content[1:])


def dictionary():
    """As the page prints it: its lines joined."""
    [fence] = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return fence.replace("\n", "").encode()


def read(content):
    """Header and blocks."""
    assert content[:8] == b"\x89DGZ\r\n\x1a\n"
    version, reserved, text, length, size = struct.unpack("<HHIIQ", content[8:28])
    assert (version, reserved, size) == (1, 0, len(content))
    assert zlib.crc32(content[:60]) == int.from_bytes(content[60:64], "little")
    end = size - 4 - length
    assert zlib.crc32(content[end:-4]) == int.from_bytes(content[-4:], "little")
    header = plain(content[end:-4])
    assert len(header) == text
    blocks, reader = [], Reader(content[64:end])
    while reader.at < len(reader.content):
        start = reader.at
        count = reader.varint()
        prefix, check = reader.content[start : reader.at], int.from_bytes(reader.take(4), "little")
        blocks.append(reader.take(count))
        assert zlib.crc32(prefix + blocks[-1]) == check
    return json.loads(header), blocks


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
    assert (1, 3 if context else 2) in tags
    assert (1, 4) in tags


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
