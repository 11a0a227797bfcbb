"""Files and texts that are no recipe: each ends in one clear error."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.errors import RecipeError
from demiglace.recipe import load_recipe
from demiglace.recipe.toml import parse

MINIMAL = b'[[pass]]\nuse = "prune.magnitude"\n'


def refused(raw: bytes | str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(raw, "r.toml")
    assert len(caught.value.faults) == 1
    return str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_read_over():
    root = parse(b"\xef\xbb\xbf" + MINIMAL.replace(b"\n", b"\r\n"), "r.toml")
    assert root.plain() == {"pass": [{"use": "prune.magnitude"}]}
    assert str(root.place(("pass", 0, "use"))) == "r.toml:2:7"


def test_text_that_is_not_utf8_is_named_by_byte_and_line():
    assert refused(b'name = "x"\nseed = \xe9\n') == (
        "r.toml:2:8: not UTF-8: byte 18 is 0xe9\n"
        "    2 | seed = \ufffd\n"
        "      |        ^\n"
        "  hint: the file seems to be saved as another encoding; save it as UTF-8"
    )


def test_utf16_is_recognised():
    assert "seems to be saved as UTF-16" in refused("name = 'x'".encode("utf-16"))


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf", b"  \n# only a comment\n"])
def test_an_empty_recipe_is_called_empty(raw):
    assert refused(raw) == (
        "r.toml is empty\n  hint: `demiglace init` writes a recipe with comments to begin from"
    )


def test_more_than_a_mebibyte_is_refused():
    assert refused(b"#" * ((1 << 20) + 1)) == (
        "r.toml is larger than 1 MiB, the limit for a recipe\n"
        "  hint: is it a recipe? A model or data set is named in a recipe, not held by it"
    )
    parse(b"x=1\n#" + b"#" * ((1 << 20) - 5), "r.toml")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            ".".join("a" * 10_000) + " = 1",
            "r.toml:1:1: a key has 10,000 dotted parts; at most 16 are allowed",
        ),
        ("['x'" + " . 'x'" * 999 + "]", "r.toml:1:2: a key has 1,000 dotted parts; at most 16 are allowed"),
        ("a = " + "[" * 5000 + "]" * 5000, "r.toml:1:37: brackets are nested more than 32 deep"),
        ("a = " + "{a = " * 5000 + "1" + "}" * 5000, "r.toml:1:165: brackets are nested more than 32 deep"),
        ("seed = " + "1" * 5000, "r.toml:1:8: a key or number has 5,000 characters; at most 256 are allowed"),
        ("a = 1." + "1" * 5000, "r.toml:1:5: a key or number has 5,000 characters; at most 256 are allowed"),
        ("a = [" + "1," * 200_000 + "]", "r.toml:1:200002: there are more than 100,000 keys and values"),
        ("a = " + "{x.x.x.x.x.x.x.x = " * 20 + "1" + "}" * 20, "nested more than 32 deep"),
    ],
    ids=["key parts", "header parts", "arrays", "inline tables", "digits", "decimals", "values", "depth"],
)
def test_what_would_make_the_parser_suffer_is_refused_before_it(source, message):
    assert message in refused(source)


@pytest.mark.parametrize("inside", ['"{}"', "'{}'", '"""{}"""', "'''{}'''", "1 # {}"])
def test_limits_do_not_count_what_stands_in_strings_and_comments(inside):
    parse("a = " + inside.format("[" * 100 + "a." * 100 + "1" * 1000), "r.toml")


@pytest.mark.parametrize("unclosed", ["'", '"', "'''", '"""', '"\\', '"""\\', "'\\'", '"\\"'])
def test_unclosed_strings_without_end_take_no_quadratic_time(unclosed):
    refused("a = " + unclosed * 100_000)


@pytest.mark.parametrize(
    ("source", "where", "message", "hint"),
    [
        ("use = prune.magnitude", "1:7", "prune.magnitude is not a value", 'in quotes: "prune.magnitude"'),
        ("x = True", "1:5", "True is not a value", "write true"),
        ("x = None", "1:5", "None is not a value", "leave the key out"),
        ("x =\n", "1:4", "a value is missing", "write `key = value`"),
        ("model: mlp", "1:6", "a key needs `=` and a value", "write `key = value`"),
        ("a = 1\na = 2", "2:1", "this is defined twice", "keep one"),
        ("[a]\nx = 1\n[a]", "3:1", "this table is defined twice", "[[pass]]"),
        ("[[pass]]\n[pass]", "2:1", "this table is defined twice", "[[pass]]"),
        ("a = {x = 1, x = 2}", "1:1", "this key is defined twice", "keep one of the two"),
        ("a = {x = 1}\na.y = 2", "2:1", "this table was finished further up", "where the table first stands"),
        ("a = [1, 2", "1:10", "the array is not closed", "close it with ]"),
        ("a = {x = 1 y = 2}", "1:12", "the inline table is not closed", "close it with }"),
        ("[a", "1:3", "the table header is not closed", "[[pass]]"),
        ('a = "x\nb = 1', "1:7", "the string is not closed", "on the same line"),
        ("a = 'x", "1:7", "the string is not closed", "on the same line"),
        (r'a = "re:\d"', "1:9", "a backslash in double quotes starts an escape", "single quotes"),
        ("a = 1 b = 2", "1:7", "the line goes on after its value", "one `key = value` a line"),
        ("= 3", "1:1", "no line can begin like this", "[[pass]]"),
        ("a = '\x01'", "1:6", "a control character stands in the text", "delete it"),
    ],
)
def test_a_syntax_error_says_where_what_and_what_to_do(source, where, message, hint):
    text = refused(source)
    assert text.startswith(f"r.toml:{where}: not valid TOML: {message}\n")
    assert hint in text.splitlines()[-1]


def test_a_syntax_error_shows_the_line_and_a_caret():
    assert refused("seed = 0\nuse = prune.magnitude # x\n") == (
        "r.toml:2:7: not valid TOML: prune.magnitude is not a value\n"
        "    2 | use = prune.magnitude # x\n"
        "      |       ^^^^^^^^^^^^^^^\n"
        '  hint: text stands in quotes: "prune.magnitude"'
    )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.text("ab.=12[]{}'\"\\#,\n\r \té-:T+_", max_size=40).map(str.encode))
def test_any_bytes_are_a_tree_or_a_recipe_error(raw):
    with suppress(RecipeError):
        parse(raw, "r.toml")


def test_a_missing_file_shows_the_nearest_in_its_folder(tmp_path):
    (tmp_path / "digits.toml").write_bytes(MINIMAL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "digit.toml")
    missing, near = tmp_path / "digit.toml", tmp_path / "digits.toml"
    assert str(caught.value) == f"there is no file {missing}\n  hint: did you mean {near}?"


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no folder .*nowhere either"):
        load_recipe(tmp_path / "nowhere" / "r.toml")


def test_a_directory_is_not_a_recipe(tmp_path):
    (tmp_path / "digits.toml").write_bytes(MINIMAL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is a directory, not a recipe\n"
        f"  hint: name one of its recipes, such as {tmp_path / 'digits.toml'}"
    )


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(RecipeError, match="is not a regular file"):
        load_recipe(tmp_path / "pipe.toml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_says_why(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(MINIMAL)
    path.chmod(0)
    with pytest.raises(RecipeError, match="cannot be read: Permission denied"):
        load_recipe(path)


def test_a_path_that_no_file_can_have_is_refused():
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe("r\0.toml")
    with pytest.raises(RecipeError, match="cannot be read: File name too long"):
        load_recipe("r" * 5000)


def test_a_link_that_leads_to_itself_says_why(tmp_path):
    (tmp_path / "r.toml").symlink_to(tmp_path / "r.toml")
    with pytest.raises(RecipeError, match="cannot be read: Too many levels of symbolic links"):
        load_recipe(tmp_path / "r.toml")
