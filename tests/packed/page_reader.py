"""A reader of packed files that knows only `docs/reference/packed-format.md`."""

import bisect
import collections
import itertools
import json
import lzma
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "packed-format.md"
MEANS = (
    *(64, 104, 169, 275, 446, 724, 1176, 1911, 3104, 5043, 8192, 13308, 21619, 35120, 57052),
    *(92682, 150562, 244589, 397336),
)
SUMS = (*range(1, 9), 12, 16, 24, 32, 48, 64, 96)
QUARTERS = (16384, 19484, 23170, 27554)


def frequencies(levels):
    weights = [0 if level == 0 else QUARTERS[(level - 1) % 4] * 2 ** ((level - 1) // 4) for level in levels]
    room = 2**24 - len(levels)
    shares = [weight * room // sum(weights) for weight in weights]
    shares[weights.index(max(weights))] += room - sum(shares)
    return [share + 1 for share in shares]


def level(thresholds, value):
    return bisect.bisect_right(thresholds, value)


def curve(logit):
    """The probability of a logit."""
    first, rest = logit // 32 * 32, logit % 32
    low, high = (round(65536 / (1 + math.exp(-knot / 256))) for knot in (first, first + 32))
    return min(max((low * (32 - rest) + high * rest) // 32, 8), 65528)


CURVE = [curve(logit) for logit in range(-2839, 2840)]


def logit(probability):
    return min(bisect.bisect_left(CURVE, probability), 5678) - 2839


class Mixed:
    """The section on mixed integers, word by word."""

    def __init__(self, lines, width, lag, largest, pop):
        self.width, self.lag, self.largest, self.pop = width, lag, largest, pop
        self.sizes, self.signs, self.out = [], [], []
        self.counts = collections.defaultdict(lambda: [0, 0])
        self.weights = [[19661] * 5 + [65536] for _ in range(12)]
        for _ in range(lines):
            self.line()

    def at(self, rows, distance, place):
        inside = 0 < distance <= len(rows) and 0 <= place < self.width
        return rows[-distance][place] if inside else 0

    def line(self):
        self.now = [self.contexts(place) for place in range(self.width)]
        mean = level(MEANS, (sum(now[1] for now in self.now) << 16) // (14 * self.width))
        self.now = [(near, mean, *rest) for near, _, *rest in self.now]
        there = self.step([(place, 0) for place in range(self.width)])
        places = [place for place in range(self.width) if there[place]]
        negative = dict(zip(places, self.step([(place, 1) for place in places]), strict=True))
        classes, open_ = dict.fromkeys(places, 0), places
        for one in range(self.largest):
            above = self.step([(place, 2 + one) for place in open_])
            open_ = [place for place, bit in zip(open_, above, strict=True) if bit]
            classes |= dict.fromkeys(open_, one + 1)
        found = dict.fromkeys(places, 1)
        for one in range(self.largest):
            open_ = [place for place in places if classes[place] > one]
            bits = self.step([(place, 9 + 128 * classes[place] + found[place]) for place in open_])
            found |= {place: 2 * found[place] + bit for place, bit in zip(open_, bits, strict=True)}
        self.sizes.append([classes.get(place, -1) + 1 for place in range(self.width)])
        self.signs.append([1 + negative[place] if place in negative else 0 for place in range(self.width)])
        self.out.append([found.get(p, 0) * (-1 if negative.get(p) else 1) for p in range(self.width)])

    def contexts(self, place):
        g = self.lag
        a = lambda distance, where=place: self.at(self.sizes, distance, where)  # noqa: E731
        near = 3 * min(a(1), 2) + min(a(g), 2)
        for each in (a(2), a(g + 1), a(g - 1)):
            near = 2 * near + min(each, 1)
        around = 4 * a(1) + 4 * a(g) + 2 * a(g + 1) + 2 * a(g - 1) + 2 * a(2)
        total = sum(row[place] for row in self.sizes)
        means = level(MEANS, ((2 * total + 1) << 15) // (len(self.sizes) + 2))
        sums = level(SUMS, around + 2 * a(2 * g) + a(1, place - 1) + a(1, place + 1))
        return near, around, means, sums, 3 * self.at(self.signs, 1, place) + self.at(self.signs, g, place)

    def step(self, asked):
        predicted = [self.predict(place, question) for place, question in asked]
        bits = []
        for *_, probability in predicted:
            zero = (65536 - probability) * (2**24 - 2) // 65536 + 1
            [bit] = self.pop([zero, 2**24 - zero], 1)
            bits.append(bit)
        gradients = collections.defaultdict(lambda: [0] * 6)
        for (_, mix, inputs, probability), bit in zip(predicted, bits, strict=True):
            for index, each in enumerate(inputs):
                gradients[mix][index] += each * (65536 * bit - probability)
        for mix, gradient in gradients.items():
            for index, each in enumerate(gradient):
                moved = self.weights[mix][index] + (262 * each // 2**24) // max(1, len(bits) // 64)
                self.weights[mix][index] = min(max(moved, -(2**19)), 2**19)
        for (keys, *_), bit in zip(predicted, bits, strict=True):
            for key in keys:
                self.counts[key][bit] += 1
        for key in {key for keys, *_ in predicted for key in keys}:
            if sum(self.counts[key]) > 1023:
                self.counts[key] = [each // 2 for each in self.counts[key]]
        return bits

    def predict(self, place, q):
        near, mean, means, sums, signs = self.now[place]
        own = q * self.width + place if q < 3 else 3 * self.width + q
        kinds = (72 * q + near, 400 * q + 20 * means + mean, 144 * q + 9 * sums + signs, 20 * q + mean, own)
        keys = [("question", q), *enumerate(kinds)]
        n0, n1 = self.counts[keys[0]]
        general = (65536 * n1 + 65536) // (n0 + n1 + 2)
        inputs = []
        for n0, n1 in (self.counts[key] for key in keys[1:]):
            inputs.append(logit((65536 * n1 + 2 * general) // (n0 + n1 + 2)) - logit(general))
        inputs.append(logit(general))
        weights = self.weights[min(q, 11)]
        total = sum(weight * each for weight, each in zip(weights, inputs, strict=True)) // 65536
        return keys, min(q, 11), inputs, CURVE[min(max(total, -2839), 2839) + 2839]


ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
LEVELS = [QUARTERS[h % 4] * 2 ** (h // 4 + 4) for h in range(1, 80, 2)]


def deviation(level):
    return ROOTS[level % 4] * 2.0 ** (level // 4 - 3)


def below(edge, center, level):
    """The mass below an edge, less half of all."""
    e = (edge - (center + 0.5)) / deviation(level) * 1.0690449676496976
    s = e / math.sqrt(e * e + 16)
    q, t, u = 1 - s * s, 1.0, 1.0
    for h in range(1, 8):
        t = t * q * ((2 * h - 1) / (2 * h))
        u = u + t
    return s * u * 2.0**29


class Predicted:
    """The section on predicted integers, number by number."""

    def __init__(self, width):
        self.width, self.n = width, 0
        self.sums = [[0] * width for _ in range(width)]
        self.seen, self.expected = collections.Counter(), collections.Counter()

    def rows(self, count, shrink, level, ends, pop):
        out = []
        while len(out) < count:
            band = min(count - len(out), 4096, max(32, self.n // 4))
            out += self.band(band, shrink, level, range(ends[0], ends[1] + 1), pop)
        return out

    def factors(self, shrink, level):
        a = [
            [float(sum_) * (self.n / (self.n + self.width / 2**shrink)) for sum_ in row] for row in self.sums
        ]
        for i in range(self.width):
            a[i][i] = self.sums[i][i] + 8 * deviation(level) ** 2
        c = [[0] * self.width for _ in range(self.width)]
        for k in range(self.width - 1):
            for i in range(k + 1, self.width):
                factor = a[i][k] / a[k][k]
                c[i][k] = min(max(round(4096 * factor), -65536), 65536)
                a[i][k + 1 :] = [a[i][j] - factor * a[k][j] for j in range(k + 1, self.width)]
        left = [4096 * (a[i][i] / (self.n + 8)) for i in range(self.width)]
        return c, [min(max(round(each), 16), 2**26) for each in left]

    def band(self, count, shrink, level, values, pop):
        c, variances = self.factors(shrink, level)
        factors = []
        for v in values:
            a = 1 if v in {values[0], values[-1]} else 16
            factor = (self.seen[v] + a) * 2**24 // (self.expected[v] + a * 2**8)
            factors.append(min(max(factor, 2**12), 2**20))
        residuals, spread, rows = [[] for _ in range(count)], [20 * 4096] * count, [[] for _ in range(count)]
        expected = collections.Counter()
        for j in range(self.width):
            for row in range(count):
                p = sum(each * r for each, r in zip(c[j], residuals[row], strict=False)) // 4096
                p = min(max(p, -8192), 8192)
                now = bisect.bisect_right(LEVELS, spread[row] // (20 + j) * variances[j])
                g = min(max((23 - now) // 4, -3), 3)
                center = (p + 2 ** (5 - g)) // 2 ** (6 - g) * 2.0**-g
                freqs = self.frequencies(center, now, values, factors)
                [symbol] = pop(freqs, 1)
                x = values[symbol]
                rows[row].append(x)
                residuals[row].append(64 * x - p)
                grown = residuals[row][-1] ** 2 * (2**32 // variances[j]) // 2**20
                spread[row] += min(grown, 2**18)
                for v, freq in zip(values, freqs, strict=True):
                    expected[v] += freq - 1
        for row in rows:
            for i, j in itertools.product(range(self.width), repeat=2):
                self.sums[i][j] += row[i] * row[j]
            self.seen.update(row)
        self.n += count
        for v in values:
            self.expected[v] += expected[v] // 2**16
        return rows

    def frequencies(self, center, level, values, factors):
        edges = [below(v, center, level) for v in [*values, values[-1] + 1]]
        masses = [max(0, math.floor(high - low)) for low, high in itertools.pairwise(edges)]
        weights = [mass * factor // 2**16 + 1 for mass, factor in zip(masses, factors, strict=True)]
        room = 2**24 - len(weights)
        shares = [weight * room // sum(weights) for weight in weights]
        shares[weights.index(max(weights))] += room - sum(shares)
        return [share + 1 for share in shares]


class Reader:
    """Reads one block; `predicted` by width is what blocks of the same tensor leave to it."""

    def __init__(self, content, predicted=None):
        self.content, self.at = content, 0
        self.predicted = {} if predicted is None else predicted

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

    def integers(self, count, columns, predicted=None):
        kind = self.take(1)[0]
        if kind == 0:
            return list(self.take(count))
        if kind == 1:
            width = self.take(1)[0]
            number = int.from_bytes(self.take(-(-count * width // 8)), "little")
            return [number >> width * place & 2**width - 1 for place in range(count)]
        if kind == 5:
            usual, largest, across = self.take(3)
            lag = self.varint()
            self.stack()
            lines, width = (columns, count // columns) if across else (count // columns, columns)
            matrix = np.array(Mixed(lines, width, lag, largest, self.pop).out)
            assert self.state == 0
            assert not self.words
            return ((matrix.T if across else matrix).reshape(-1) + usual & 255).tolist()
        if kind == 6:
            usual, across, shrink, first, low, high = self.take(6)
            width = self.varint()
            self.stack()
            known = {} if predicted is None else predicted
            ends = low - 128, high - 128
            rows = known.setdefault(width, Predicted(width)).rows(
                count // width, shrink, first, ends, self.pop
            )
            assert self.state == 0
            assert not self.words
            matrix = np.array(rows).reshape((columns, -1) if across else (-1, columns))
            return ((matrix.T if across else matrix).reshape(-1) + usual & 255).tolist()
        if kind == 7:
            low, high = self.take(2)
            self.stack()
            which = self.modelled(3, count)
            inside = iter(self.modelled(high - low - 1, which.count(0), 8) if 0 in which else [])
            return [(low, high)[each - 1] if each else low + 1 + next(inside) for each in which]
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
            return self.integers(count, columns, self.predicted)
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
