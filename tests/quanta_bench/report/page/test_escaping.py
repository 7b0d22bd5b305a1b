"""Text of data, models and plug-ins stays text in the page, as a parser of HTML sees it."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment, PackageLoader

from quanta_bench.report.page.escaping import script_json, source_hash
from quanta_bench.report.page.grids import Cell, Grid, Heading, Line
from quanta_bench.utils.escaping import printable

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\x1b[2J\"'&amp;<!--"

TEXTS = st.text(st.characters()) | st.sampled_from([HOSTILE, "<!--<script>", "]]>", "&lt;", "\x00"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)

TEMPLATE: Any = Environment(
    loader=PackageLoader("quanta_bench.report.page"), autoescape=True, trim_blocks=True
).get_template("grid.html.jinja")


class Seen(HTMLParser):
    """The elements of a page with their attributes, and the text in each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(value: Any) -> Any:
    """A value whose texts are printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): shown(part) for key, part in value.items()}
    return [shown(part) for part in value] if isinstance(value, list) else value


@given(VALUES)
@example(HOSTILE)
@example({HOSTILE: [HOSTILE]})
def test_json_in_a_script_is_the_same_value_and_no_markup(value: Any) -> None:
    text = script_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    seen = Seen(f'<script type="application/json">{text}</script><p>')
    assert [tag for tag, _ in seen.elements] == ["script", "p"]
    assert json.loads("".join(seen.texts)) == shown(value)


@given(TEXTS, TEXTS, TEXTS)
@example(HOSTILE, HOSTILE, HOSTILE)
def test_a_table_keeps_its_elements_whatever_it_says(label: str, about: str, caption: str) -> None:
    def drawn(*words: str) -> Seen:
        one, two, three = words
        grid = Grid(
            "id",
            "name",
            three,
            [Heading(one, two, number=False), Heading(one)],
            [Line([Cell(one, about=two, minor=three), Cell(one, 1.5, two)], three)],
            {one: [two]},
        )
        return Seen(str(TEMPLATE.module.grid(grid)))

    plain, seen = drawn("x", "x", "x"), drawn(label or "x", about or "x", caption or "x")
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in plain.elements]
    for (_, expected), (_, found) in zip(plain.elements, seen.elements, strict=True):
        assert found.keys() == expected.keys()
    titles = [attributes["title"] for _, attributes in seen.elements if "title" in attributes]
    assert titles.count(about or "x") >= 2


def test_a_hash_is_that_of_the_policy() -> None:
    text = "alert(1)"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert source_hash(text) == f"'sha256-{digest}'"
