"""The scanner's marks, over generated TOML in every style that the format allows."""

from __future__ import annotations

import json
import random
from datetime import date, datetime, time

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.recipe.text import Text
from demiglace.recipe.toml import parse_text

KEYS = st.one_of(
    st.sampled_from(["pass", "with", "a", "b-c", "1", "2024-01-01", "true", "x_y"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x1F600), max_size=6),
)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\"'\\#]},="), max_size=20
)
LEAVES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.dates(date(1900, 1, 1)),
    st.times().map(lambda one: one.replace(microsecond=0)),
    st.datetimes(datetime(1900, 1, 1)).map(lambda one: one.replace(microsecond=0)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(
    KEYS,
    VALUES
    | st.dictionaries(KEYS, VALUES, max_size=4)
    | st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=3),
    max_size=5,
)


class Writer:
    """Writes the same data in one of many ways, drawn at random."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def document(self, data) -> str:
        return "".join(self.table(data, []))

    def table(self, data, path):
        tables = {key: value for key, value in data.items() if self.has_header(value)}
        for key, value in data.items():
            if key not in tables:
                yield from self.pair([key], value)
        for key, value in tables.items():
            yield from self.headed([*path, key], value)

    def has_header(self, value) -> bool:
        if isinstance(value, dict):
            return self.rng.random() < 0.6
        rows = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
        return bool(rows) and self.rng.random() < 0.8

    def headed(self, path, value):
        double = isinstance(value, list)
        for table in value if double else [value]:
            left, right = ("[[", "]]") if double else ("[", "]")
            yield f"{self.blank()}{left}{self.space()}{self.key(path)}{self.space()}{right}{self.end()}"
            yield from self.table(table, path)

    def pair(self, key, value):
        if isinstance(value, dict) and value and self.rng.random() < 0.5:
            for inner, held in value.items():
                yield from self.pair([*key, inner], held)
            return
        yield f"{self.blank()}{self.key(key)}{self.space()}={self.space()}{self.value(value)}{self.end()}"

    def key(self, path) -> str:
        return f"{self.space()}.{self.space()}".join(map(self.part, path))

    def part(self, key) -> str:
        styles = [self.basic(key)]
        if key and all(
            character.isascii() and (character.isalnum() or character in "-_") for character in key
        ):
            styles.append(key)
        if "'" not in key:
            styles.append(f"'{key}'")
        return self.rng.choice(styles)

    def value(self, value) -> str:
        if isinstance(value, dict):
            pairs = f"{self.space()},{self.space()}".join(
                f"{self.key([key])}{self.space()}={self.space()}{self.value(held)}"
                for key, held in value.items()
            )
            return f"{{{self.space()}{pairs}{self.space()}}}"
        if isinstance(value, list):
            return self.array(value)
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, datetime):
            return value.isoformat(self.rng.choice("T "))
        if isinstance(value, date | time):
            return value.isoformat()
        return json.dumps(value) if isinstance(value, bool) else repr(value)

    def array(self, items) -> str:
        inner = "".join(f"{self.lines()}{self.value(item)}{self.lines()}," for item in items)
        return f"[{inner if self.rng.random() < 0.5 else inner[:-1]}{self.lines()}]"

    def string(self, text) -> str:
        styles = [self.basic(text), f'"""\n{self.basic(text)[1:-1]}"""']
        if "'" not in text and "\n" not in text:
            styles.append(f"'{text}'")
        if "'''" not in text and not text.startswith("\n"):
            styles.append(f"'''{text}'''")
        if '"' in text and '"""' not in text:  # bare quotes inside and before the closing three
            escaped = text.replace("\\", "\\\\").replace("\x7f", "\\u007f")
            styles.append(f'"""{chr(10)}{escaped}"""')
        return self.rng.choice([style for style in styles if self.means(style, text)])

    def means(self, style, text) -> bool:
        try:
            return tomli.loads(f"x = {style}")["x"] == text
        except tomli.TOMLDecodeError:
            return False

    def basic(self, text) -> str:
        return json.dumps(text, ensure_ascii=self.rng.random() < 0.2 and text.isascii())

    def space(self) -> str:
        return self.rng.choice(["", " ", "\t "])

    def lines(self) -> str:
        return self.rng.choice(["", " ", "\n", ' # ], } = "\n', "\n\n  "])

    def blank(self) -> str:
        return self.rng.choice(["", "  ", "\n", "# [not.a] = 'header\n"])

    def end(self) -> str:
        return self.rng.choice(["\n", "  \n", " # comment = [\n"])


def written(data, seed: int) -> Text:
    return Text("recipe.toml", Writer(seed).document(data))


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32))
def test_every_value_and_key_has_a_span_that_reads_as_that_value_and_key(data, seed):
    text = written(data, seed)
    root = parse_text(text)
    assert root.plain() == tomli.loads(text.source)
    for path, node in root.walk():
        if node.span is not None and node.header is None:
            start, end = node.span
            assert tomli.loads(f"x = {text.source[start:end]}")["x"] == node.plain()
        if node.key is not None:
            start, end = node.key
            assert list(tomli.loads(f"{text.source[start:end]} = 1")) == [path[-1]]


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32))
def test_nothing_that_was_written_is_left_without_a_mark(data, seed):
    text = written(data, seed)
    for path, node in parse_text(text).walk():
        if path and isinstance(path[-1], str):
            assert node.key is not None
        if not isinstance(node.value, dict | list):
            assert node.span is not None


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32))
def test_a_header_mark_is_the_whole_header(data, seed):
    text = written(data, seed)
    for path, node in parse_text(text).walk():
        if path and node.header is not None:
            header = text.source[slice(*node.header)]
            names = tomli.loads(header)
            for part in path:
                index = isinstance(part, int)
                if not index or isinstance(names, list):
                    names = names[0 if index else part]
            assert names == {}


@given(st.text("ab\n\té=", max_size=40), st.data())
def test_a_place_names_the_line_and_column_of_an_offset(source, data):
    offset = data.draw(st.integers(0, len(source)))
    place = Text("f", source).place(offset)
    lines = source.split("\n")
    assert place.text == lines[place.line - 1]
    assert sum(len(line) + 1 for line in lines[: place.line - 1]) + place.column - 1 == offset


def test_a_value_over_several_lines_is_underlined_on_its_first():
    root = parse_text(Text("f", "a = [\n  1,\n  2]\n"))
    place = root.place(("a",))
    assert (place.line, place.column, place.width, place.text) == (1, 5, 1, "a = [")


def test_an_absent_thing_is_placed_at_the_header_of_what_should_hold_it():
    root = parse_text(Text("f", "[model]\nuse = 'x'\n\n[[pass]]\nuse = 'a'\n\n[[pass]]\nuse = 'b'\n"))
    assert str(root.place(("model", "widths"), "header")) == "f:1:1"
    assert str(root.place(("pass", 1, "optimizer", "lr"))) == "f:7:1"
    assert str(root.place(("pass", 1, "use"))) == "f:8:7"
    assert str(root.place(("pass", 1, "use"), "key")) == "f:8:1"
