"""Hostile text in every form it is written in, read back with parsers of others."""

from __future__ import annotations

import csv
import io
import re

import pytest
from markdown_it import MarkdownIt

from quanta_bench.utils import escaping

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://example.org/y.png)",
    "a | b",
    "`code` **bold** _it_ ~~gone~~ $x$",
    "# heading",
    "> quote",
    "1. one",
    "- item",
    "---",
    "&lt;b&gt; &copy;",
    r"\input{/etc/passwd} & % # _ ^ ~ {} $",
    "a\nb\r\nc\u2028d",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnirts",
    "\ud800",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    """By CommonMark's parser: one list item or cell whose text is the text."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = escaping.one_line(text)
    item = [t for t in parser.parse(f"- {escaping.markdown(text)}") if t.type == "inline"]
    assert [_plain(token) for token in item] == ([shown] if shown else [])
    table = parser.parse(f"| a | b |\n|---|---|\n| {escaping.markdown(text)} | c |")
    cells = [_plain(token) for token in table if token.type == "inline"]
    assert cells == ["a", "b", shown, "c"]


def _plain(token: object) -> str:
    """The text of an inline token; fails if it is more than text."""
    children = token.children or []  # type: ignore[attr-defined]
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@pytest.mark.parametrize("text", ["a", "a`b", "``", "`a`", "<b> [x](y) | *c*"])
def test_code_shows_the_text(text: str) -> None:
    (inline,) = [
        t for t in MarkdownIt().parse(f"x {escaping.markdown_code(text)}") if t.type == "inline"
    ]
    *_, code = inline.children or []
    assert (code.type, code.content) == ("code_inline", text)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-2+3", "@SUM(1)", '=HYPERLINK("x")', "  =1", "\t=1", "\uff1d1"]
)
def test_a_formula_is_a_text(text: str) -> None:
    (row,) = csv.reader(io.StringIO(escaping.csv_text(["a"], [[text]]).partition("\n")[2]))
    assert row == [f"'{text}"]


@pytest.mark.parametrize("value", [1, -2.5, "-2.5", "-7.5 9.25", "LoRA r=8", "6-6-4-4", "", "nan"])
def test_numbers_and_names_stay_as_they_are(value: object) -> None:
    (row,) = csv.reader(io.StringIO(escaping.csv_text(["a"], [[value, "x"]]).partition("\n")[2]))
    assert row == [str(value), "x"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_is_left(text: str) -> None:
    left = escaping.printable(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left)
    assert len(left) == len(text)
    left.encode()


def test_latex_keeps_the_hyphens_of_an_option() -> None:
    assert escaping.latex("--seeds 0") == "-{}-seeds 0"
    assert escaping.latex("0\u20131") == "0--1"


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_has_no_command_but_those_of_characters(text: str) -> None:
    written = escaping.latex(text)
    allowed = (
        r"\\(text\w+\{\}|[&%_#${}]|,|ldots\{\})|-\{\}-"
        r"|\$(\\pm|\\times|-|\\to|\\leq|\\geq)\$|\{[\[\]*]\}"
    )
    rest = re.sub(allowed, "", written)
    assert not set(rest) & set("\\{}$&%#_^[]*\n")
